"""A run in which a stream fails and a row is rejected shows no secret. Searched are its log, events, errors, process list, files and tables."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.contract.kinds import DESTINATIONS, SOURCES
from tests.contract.world import World
from tests.faults.canaries import ProcessWatch
from tests.faults.processes import Case, Process

# The last kind has a login: a source without one is run there, too.
PAIRS = [(source, list(DESTINATIONS)[-1]) for source in SOURCES]


@pytest.mark.parametrize("world", PAIRS, indirect=True, ids="-".join)
def test_a_run_shows_no_secret(world: World, start: Callable[[Case], Process], settings_environ: Mapping[str, str], write_tenant: Callable[..., Path]) -> None:
    world.fill()
    world.source.add_bad_row()
    world.source.break_stream()
    body = world.yaml
    write_tenant("acme", {key: body[key] for key in ("destination", "sources")})
    with ProcessWatch() as watch:
        process = start(Case(command=("run", "acme", "--json")))
        code = process.wait()
    (result,) = json.loads("".join(line for line in process.output))["tenants"]
    assert code == (0 if world.source.quarantines else 1), process.log
    assert {asset["key"]: asset["rows_rejected"] for asset in result["assets"]}["acme/raw/shop/orders"] == 1
    shown = {"standard output": "".join(process.output), "standard error": process.log, "processes": b"\n".join(watch.seen).decode(errors="replace")}
    for table in ("loads", "rejected_rows", "imported_files", "stream_state"):
        shown[table] = str(world.destination.ask(f"select * from acme_fabric.{table}"))
    shown |= {str(path): path.read_bytes().decode("latin-1") for path in world.settings.data_dir.rglob("*") if path.is_file()}
    secrets = [secret for secret in (world.source.secret, world.destination.secret) if secret]
    assert secrets
    assert [name for name, text in shown.items() if any(secret in text for secret in secrets)] == []
    # The search looks where things are: the load, and Dagster's record of its events.
    assert "orders" in shown["loads"]
    assert any("ASSET_MATERIALIZATION" in text for name, text in shown.items() if "/dagster/" in name)
