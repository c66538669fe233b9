"""The dbt project is parsed once per session; every test's own data folder gets a copy of the result."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric_assets.settings import Settings
from fabric_assets.transform.project import prepare_project
from tests.conftest import ROOT
from tests.factories.shop import make_shop


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("prepared")
    prepare_project(Settings(tenants_dir=data, dbt_project_dir=ROOT / "dbt_project", data_dir=data))
    return data / "dbt" / "prepared"


@pytest.fixture
def prepared(settings: Settings, prepared_data: Path) -> Settings:
    """Settings whose data folder holds the parsed dbt project."""
    shutil.copytree(prepared_data, settings.data_dir / "dbt" / "prepared")
    return settings


@pytest.fixture
def shop_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = make_shop(tmp_path / "shop.db")
    monkeypatch.setenv("SHOP_URL", url)
    return url


@pytest.fixture
def isolated_home(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Keep DAGSTER_HOME, which opening an instance sets, out of the next test."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    home = settings.data_dir / "dagster"
    home.mkdir(parents=True)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return lambda: None
