"""Tenants with a database each are provisioned, loaded and offboarded by real commands: killed anywhere, and without a secret in what is left or shown."""

import json
import random
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fabric_assets.config.base import SecretRef
from fabric_assets.security.secrets import remove_secret, resolve_secret, write_secret
from tests.faults.canaries import ProcessWatch
from tests.faults.processes import Case, Process
from tests.provision.conftest import ManagedWarehouse, build_tenant
from tests.support.lengths import AT_FULL_LENGTH, choose, choose_seeds

pytestmark = [pytest.mark.xdist_group("provision"), pytest.mark.timeout(600)]

Start = Callable[..., Process]
KILLS = choose(
    ("exported.after:1", "exported.after:4", "destination.before", "drop.before:2", "drop.after:2", "drop.after:4", "destination.after", "search.before",
     "files.after:7", "certificate.before", "certificate.after"), 4
)  # fmt: skip
# One call takes about so long.
SECONDS = 6.0


def finish(start: Start, *command: str, environ: Mapping[str, str] = {}) -> Process:
    """Run a command of `fabric` to its successful end."""
    process = start(Case(command=command), environ=environ)
    assert process.wait(180) == 0, process.log + "".join(process.output)
    return process


def read_certificate(process: Process) -> dict:
    return json.loads("".join(process.output))


@pytest.fixture
def fleet(warehouse: ManagedWarehouse, shop: Path, write_tenant: Callable[..., Path], start: Start) -> ManagedWarehouse:
    """`acme` and `globex` have a database each, with three orders in it."""
    for tenant in ("acme", "globex"):
        write_tenant(tenant, build_tenant(isolation="database"))
        write_secret(tenant, "token", f"c4n4ry-token-{tenant}", settings=warehouse.settings)
    finish(start, "provision", "--all")
    finish(start, "run", "acme", "globex", "--select", "raw/*")
    return warehouse


def list_databases(warehouse: ManagedWarehouse) -> set[str]:
    return {name for (name,) in warehouse.run("select datname from pg_database where datname like 'fabric%'", database="postgres")}


def list_roles(warehouse: ManagedWarehouse) -> set[str]:
    return {name for (name,) in warehouse.run("select rolname from pg_roles where rolname like 'fabric%'")}


def check_gone(warehouse: ManagedWarehouse, certificate: dict) -> None:
    assert list_databases(warehouse) == {"fabric_globex"}
    assert list_roles(warehouse) == {"fabric_globex", "fabric_globex_ro", "fabric_globex_bi"}
    assert warehouse.run("select count(*) from globex_raw_shop.orders", database="fabric_globex") == [(3,)]
    assert warehouse.run_as("globex", "select count(*) from globex_fabric.loads", database="fabric_globex") == [(6,)]
    assert certificate["proof"]["left"] == []
    assert {*certificate["deleted"]["database"]["roles"]} == {"fabric_acme", "fabric_acme_ro", "fabric_acme_bi"}
    assert {each["table"]: each["rows"] for each in certificate["deleted"]["relations"] if each["schema"] == "acme_raw_shop"}["orders"] == 3


@AT_FULL_LENGTH
def test_a_call_killed_at_step_after_step_is_finished_by_the_next_and_drops_the_database(fleet: ManagedWarehouse, tmp_path: Path, start: Start) -> None:
    command = ("offboard", "acme", "--yes", "--json", "--export", str(tmp_path / "out"))
    for kill in KILLS:
        killed = start(Case(command=command, kill=kill), environ={})
        assert killed.wait() == -signal.SIGKILL, (kill, killed.log)
        assert fleet.run("select count(*) from globex_raw_shop.orders", database="fabric_globex") == [(3,)]
    check_gone(fleet, read_certificate(finish(start, *command)))


@pytest.mark.parametrize("seed", choose_seeds(1)[:6])
def test_calls_killed_at_any_moment_are_finished_by_the_next(fleet: ManagedWarehouse, tmp_path: Path, start: Start, seed: int) -> None:
    command, drawn, codes = ("offboard", "acme", "--yes", "--json", "--export", str(tmp_path / "out")), random.Random(seed), list[int]()
    for _ in range(4):
        killed = start(Case(command=command, within=SECONDS, seed=drawn.randrange(10**9)), environ={})
        codes.append(killed.wait())
        assert codes[-1] in (0, -signal.SIGKILL), killed.log
        if not codes[-1]:
            check_gone(fleet, read_certificate(killed))
            return
    check_gone(fleet, read_certificate(finish(start, *command)))


def test_no_command_that_succeeds_shows_or_leaves_a_secret(fleet: ManagedWarehouse, tmp_path: Path, start: Start) -> None:
    """On command lines, in what commands print, in Dagster's records, in the server's log and in the export: the fleet is provisioned again and left."""
    settings, export = fleet.settings, tmp_path / "out"
    fleet.run(
        "create role keeper superuser login password 'c4n4ry-keeper'",
        "alter system set log_statement = 'all'",
        "select pg_reload_conf()",
        f"revoke connect, temporary on database {fleet.database} from public",
    )
    environ = {"FABRIC_PROVISION_URL": fleet.get_url("keeper", "c4n4ry-keeper")}
    secrets = {
        "keeper": "c4n4ry-keeper",
        "token": "c4n4ry-token-acme",
        "sealing key": settings.secret_keys[0],
        **{name: resolve_secret(SecretRef(secret=name), tenant="acme", settings=settings) for name in ("warehouse_login", "warehouse_reader")},
    }
    remove_secret("acme", "warehouse_login", settings=settings)
    with ProcessWatch() as watch:
        said = [finish(start, "provision", "acme", "--json", environ=environ)]
        secrets["warehouse_login made again"] = resolve_secret(SecretRef(secret="warehouse_login"), tenant="acme", settings=settings)
        said.append(finish(start, "run", "acme", "--select", "raw/*", environ=environ))
        said.append(finish(start, "provision", "acme", "--check", environ=environ))
        said.append(finish(start, "offboard", "acme", "--yes", "--export", str(export), environ=environ))
    assert len(set(secrets.values())) == 6
    # What is searched is there: a run's events, tables, the statements of each command.
    log = (fleet.server.data / "log").read_bytes()
    assert b"fabric_acme" in log and b"drop role" in log.lower()
    assert any("orders" in path.name for path in export.rglob("*"))
    fleet.run("alter system reset log_statement", "select pg_reload_conf()")
    texts = {"output": "".join(process.log + "".join(process.output) for process in said).encode(), "command lines": b"\n".join(watch.seen), "server log": log}
    for folder in (settings.data_dir, export):
        texts |= {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {(where, name) for where, text in texts.items() for name, secret in secrets.items() if secret.encode() in text} == set()
