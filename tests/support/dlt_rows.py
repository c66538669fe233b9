"""A dlt source of the tests' own, as operators keep one beside connectors.yaml, and its installation.

The source reads rows from JSON files. What else it does is in its settings: `code` is run with the module's names at hand, and may give other resources.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from fabric_assets.config.connectors_file import load_connectors
from fabric_assets.connectors.bridge.installing.building import install
from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import Settings
from tests.support.services import report_missing

SOURCE = """
import datetime, decimal, json, os, sys, time
import dlt


@dlt.source
def rows(folder: str, token: str = dlt.secrets.value, skip: list = None, code: str = "", region: str = "eu"):
    names = {"dlt": dlt, "skip": skip, **globals(), **locals()}
    exec(code or "", names)
    if "resources" in names:
        yield from names["resources"]
        return
    for name in sorted(name[:-5] for name in os.listdir(folder) if name.endswith(".json")):
        yield dlt.resource(read, name=name, primary_key="id", write_disposition="merge")(folder, name, skip or ())


def read(folder, name, skip, seq=dlt.sources.incremental("seq", initial_value=0)):
    if name in skip:
        raise ValueError(f"{name} cannot be read")
    yield json.load(open(os.path.join(folder, name + ".json")))


@dlt.resource(name="numbers", write_disposition="append")
def numbers(first=dlt.sources.incremental("id", initial_value=0), upto: int = 5):
    yield from ({"id": number} for number in range(first.last_value + 1, upto + 1))
"""


@contextmanager
def reaching_the_index() -> Iterator[None]:
    """Let uv reach PyPI: the tests' environment names an empty list of certificates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SSL_CERT_FILE", raising=False)
        patch.setenv("UV_SYSTEM_CERTS", "1")
        yield


def install_from_index(settings: Settings, *names: str) -> None:
    """Install connectors whose packages are on PyPI."""
    with reaching_the_index():
        try:
            for _ in install(settings, load_connectors(settings), names=names, report=lambda line: None):
                pass
        except ConfigurationError as error:
            if any(word in str(error).lower() for word in ("failed to fetch", "dns error", "connection", "offline")):
                report_missing("PyPI", str(error))
            raise


def install_source(root: Path) -> None:
    """Install the source as the connectors `rows` and `numbers`."""
    (root / "own").mkdir()
    (root / "own" / "rows_source.py").write_text(SOURCE)
    entries = {"rows": 'source: "rows_source:rows"', "numbers": 'source: "rows_source:numbers"'}
    text = "".join(f"  {name}: {{type: dlt, {entry}, path: own, requirements: [pyarrow]}}\n" for name, entry in entries.items())
    (root / "connectors.yaml").write_text(f"connectors:\n{text}")
    settings = replace(Settings(tenants_dir=root, dbt_project_dir=root, data_dir=root / "data"), **get_settings(root))
    install_from_index(settings, *entries)


def get_settings(root: Path) -> dict[str, Path]:
    """Get the settings that name the installed source."""
    return {"connectors": root / "connectors.yaml", "connectors_dir": root / "connectors"}
