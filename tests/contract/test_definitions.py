"""Definitions of each source type and destination kind are built without a connection, a secret, a process or an engine."""

from pathlib import Path

import pytest

from fabric_assets.settings import Settings
from tests.contract.kinds import DESTINATIONS, SOURCES
from tests.contract.source import STREAMS
from tests.test_architecture import HEAVY, load_location


def test_definitions_open_no_socket_and_read_no_secret(
    request: pytest.FixtureRequest, settings: Settings, prepared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocks, tenants = {}, []
    for name, make_source in SOURCES.items():
        folder = tmp_path / name
        (folder / "data").mkdir(parents=True)
        own = Settings(tenants_dir=folder / "tenants", dbt_project_dir=settings.dbt_project_dir, data_dir=folder / "data")
        blocks[name] = make_source(own, monkeypatch.setenv, request.getfixturevalue).build_block()
    for kind, make_destination in DESTINATIONS.items():
        destination = make_destination(settings, monkeypatch.setenv, request.getfixturevalue).build()
        for name, block in blocks.items():
            own_path = {"path": f"{block['path']}/{kind}/{name}"} if "path" in block else {}
            tenants.append({"version": 1, "tenant": f"on_{kind}_{name}", "destination": dict(destination), "sources": {"shop": block | own_path}})
    (tmp_path / "location").mkdir()
    found = load_location(tmp_path / "location", prepared_data, tenants)
    assert {f"{tenant['tenant']}/raw/shop/{stream}" for tenant in tenants for stream in STREAMS} <= set(found["keys"])
    assert found["events"] == []
    assert HEAVY & set(found["modules"]) == set()
