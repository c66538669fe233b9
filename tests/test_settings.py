"""Where things are published: beside the platform's own folder, never in or around it."""

from pathlib import Path

import pytest

from fabric_assets.errors import ConfigurationError
from fabric_assets.settings import load_settings


def test_the_folder_for_readers_is_relative_to_the_root(tmp_path: Path) -> None:
    assert load_settings({}, root=tmp_path).publish_dir == tmp_path / "published"
    assert load_settings({"FABRIC_PUBLISH_DIR": "for/readers"}, root=tmp_path).publish_dir == tmp_path / "for" / "readers"
    assert load_settings({"FABRIC_PUBLISH_DIR": "/srv/readers"}, root=tmp_path).publish_dir == Path("/srv/readers")


@pytest.mark.parametrize("folder", [".fabric", ".fabric/published", ".", "link/deeper"])
def test_a_folder_for_readers_in_or_around_the_data_folder_is_refused(tmp_path: Path, folder: str) -> None:
    (tmp_path / ".fabric").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / ".fabric")
    with pytest.raises(ConfigurationError, match="lie in one another") as caught:
        load_settings({"FABRIC_PUBLISH_DIR": folder}, root=tmp_path)
    assert caught.value.remedy == "set FABRIC_PUBLISH_DIR to a folder outside of FABRIC_DATA_DIR"


@pytest.mark.parametrize("name", ["FABRIC_DATA_DIR", "FABRIC_PUBLISH_DIR"])
def test_a_folder_after_which_duckdb_expects_options_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}=.*has a '\\?' in its path"):
        load_settings({name: "a?b"}, root=tmp_path)
