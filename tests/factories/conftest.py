"""Every test's own data folder gets a copy of the parsed dbt project."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fabric_assets.settings import Settings
from tests.factories.shop import make_shop
from tests.support.folders import inbox

__all__ = ["inbox"]


def copy_world(world: Settings, settings: Settings) -> None:
    """Copy what a run of a module's own has left: the data, and the published file."""
    shutil.copytree(world.data_dir, settings.data_dir, dirs_exist_ok=True)
    if world.publish_dir.is_dir():
        shutil.copytree(world.publish_dir, settings.publish_dir)


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
