"""Fixtures of what is deployed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fabric_assets.drivers.kinds import ADAPTERS
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def parsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `fabric prepare` makes of the repository's dbt project, as the build of an image runs it."""
    data = tmp_path_factory.mktemp("built")
    environ = {**os.environ, "FABRIC_DATA_DIR": str(data), "FABRIC_DBT_PROJECT_DIR": str(ROOT / "dbt_project")}
    command = [str(Path(sys.executable).with_name("fabric")), "prepare", "--json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["adapters"] == dict.fromkeys(ADAPTERS, "parsed")
    return data / "dbt" / "prepared"
