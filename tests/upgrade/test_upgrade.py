"""The present code opens what earlier releases have recorded: no row is lost or doubled, and each stream goes on where it was.

The archives beside this file are made by record.py, one a release. Asset keys that a release renames belong into RENAMED.
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import psycopg2
import pytest

from tests.conftest import ROOT
from tests.support import lengths
from tests.support.services import MARIADB_URL, PostgresServer
from tests.upgrade import world
from tests.upgrade.record import KEY, ROLES

pytestmark = [pytest.mark.xdist_group("upgrade"), pytest.mark.timeout(900)]

ARCHIVES = sorted(Path(__file__).parent.glob("20*.tar.xz"))
# Recorded key -> present key.
RENAMED: dict[str, str] = {}
# Where a stream's rows of step 3 are found: the columns that tell them, by their names in the recorded release.
ADDED = {
    "raw_lite.orders": (("id", "x", "pricex", "amount"), ("4", "名", "4.5", "40.00")),
    "raw_lite.events": (("name",), ("d",)),
    "raw_lite.codes": (("code", "amount"), ("1e6", "4")),
    "raw_lite.shops": (("x", "size"), ("2024-01-04", "4")),
    "raw_pg.things": (
        ("id", "counts", "labels", "body", "span", "paid", "host"),
        ("6f8a2f0e-0000-4000-8000-000000000005", "{5,5}", '{"a b",c}', '{"n": 5}', "[1,5)", "12.35", "10.0.0.5/32"),
    ),
    "raw_my.bookings": (("id", "slot", "day", "price", "body"), ("4", "14:00:00", "2024-01-04", "4.54", '{"n": 4}')),
    "raw_crm.contacts": (("id", "x", "user_name", "address__x"), ("4", "Di", "di", "Moss")),
    "raw_crm.contacts__phones": (("n",), ("4",)),
    "raw_crm.notes": (("note_id", "text"), ("40", "of 4")),
    "raw_exports.prices": (("code", "x"), ("1e6", "4.5")),
    "raw_exports.tickets": (("id", "tags"), ("3", '["a","b"]')),
    "raw_exports.points": (("name", "x", "list"), ("p3", "3", "[3, 3]")),
    "raw_ads.plan": (("month",), ("2024-03",)),
}
Tables = dict[str, dict[str, Any]]


@dataclass
class Upgraded:
    """A recorded data folder, after loads of the present code.

    Args:
        runs, tables: of each run, in order: one without news, one after step 3.
    """

    root: Path
    environ: dict[str, str]
    expected: dict[str, Any]
    runs: list[dict[str, Any]] = field(default_factory=list)
    tables: list[dict[str, Tables]] = field(default_factory=list)

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        command = [str(Path(sys.executable).with_name("fabric")), *words]
        done = subprocess.run(command, env=self.environ, cwd=self.root, capture_output=True, text=True, check=False)
        assert done.returncode in codes, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout

    def load(self) -> None:
        self.runs.append(json.loads(self.run("run", "--all", "--json", codes=(0, 1))))
        self.tables.append(self.read())

    def read(self) -> dict[str, Tables]:
        return {tenant: world.read_tables(tenant, self.root / "data", self.environ["WAREHOUSE_URL"]) for tenant in world.TENANTS}

    def get_assets(self, run: int) -> dict[str, dict[str, Any]]:
        return {asset["key"]: asset for tenant in self.runs[run]["tenants"] for asset in tenant["assets"]}


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def upgraded(request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    root = tmp_path_factory.mktemp("upgrade")
    with tarfile.open(request.param) as archive:
        archive.extractall(root, filter="data")
    (root / "data").chmod(0o700)
    # As CHANGELOG.md tells those who have a project of their own.
    project = root / "dbt_project" / "dbt_project.yml"
    project.write_text(project.read_text().replace('"<1.12.0"', '"<1.13.0"'))
    step = [2]
    with restore_postgres(root, postgres_server) as (warehouse, source), make_mysql() as mysql, world.serve(step) as api:
        opened = Upgraded(root, build_environ(root, warehouse, source, mysql, api), json.loads((root / "expected.json").read_text()))
        sqlite = root / "lite.sqlite"
        for number in (1, 2):
            world.fill(number, sqlite=None, postgres=source, mysql=mysql)
        opened.load()
        step[0] = 3
        world.fill(3, sqlite=sqlite, postgres=source, mysql=mysql)
        world.drop_files(3, root / "data")
        opened.load()
        yield opened


@contextlib.contextmanager
def restore_postgres(root: Path, server: PostgresServer) -> Iterator[tuple[str, str]]:
    """The warehouse as it was dumped, and an empty database for a source."""
    names = ("upgrade_warehouse", "upgrade_source")
    with contextlib.closing(psycopg2.connect(server.get_url())) as admin:
        admin.autocommit = True
        for name in names:
            admin.cursor().execute(f"create database {name} template template0 strategy file_copy")
        with contextlib.closing(psycopg2.connect(server.get_url(names[0]))) as connection:
            connection.cursor().execute((root / "warehouse.sql").read_text())
            connection.commit()
        try:
            yield server.get_url(names[0]), server.get_url(names[1])
        finally:
            for name in names:
                admin.cursor().execute(f"drop database {name} with (force)")
            for role in ROLES:
                admin.cursor().execute(f"drop role {role}")


@contextlib.contextmanager
def make_mysql() -> Iterator[str]:
    import pymysql

    url = os.environ.get("FABRIC_TEST_MARIADB_URL", MARIADB_URL)
    parts, name = urlsplit(url), f"test_upgrade_{os.getpid()}"
    try:
        admin = pymysql.connect(host=parts.hostname, port=parts.port or 3306, user=parts.username, password=parts.password or "", connect_timeout=3)
    except pymysql.err.OperationalError as error:
        from tests.support.services import report_missing

        report_missing("MariaDB", str(error))
    with contextlib.closing(admin), admin.cursor() as cursor:
        cursor.execute(f"create database {name} character set utf8mb4")
        try:
            yield f"{url.rstrip('/')}/{name}"
        finally:
            cursor.execute(f"drop database {name}")


def build_environ(root: Path, warehouse: str, source: str, mysql: str, api: str) -> dict[str, str]:
    return os.environ | {
        "FABRIC_TENANTS_DIR": str(root / "tenants"),
        "FABRIC_DBT_PROJECT_DIR": str(root / "dbt_project"),
        "FABRIC_DATA_DIR": str(root / "data"),
        "FABRIC_SECRET_KEYS": KEY,
        "WAREHOUSE_URL": warehouse,
        "WAREHOUSE_ADDRESS": f"postgresql://{warehouse.partition('@')[2]}",
        "LITE_URL": f"sqlite:///{root}/lite.sqlite",
        "PG_URL": source,
        "MY_URL": mysql,
        "API_URL": api,
    }


def choose(tables: Tables, tenant: str) -> Tables:
    """The raw tables, by their names without the tenant's."""
    return {name.removeprefix(f"{tenant}_"): table for name, table in tables.items() if name.startswith(f"{tenant}_raw_")}


def cut(table: dict[str, Any], columns: list[str]) -> list[list[Any]]:
    """A table's rows, with these columns alone."""
    positions = [table["columns"].index(column) for column in columns]
    return sorted(([row[position] for position in positions] for row in table["rows"]), key=repr)


@pytest.mark.parametrize("tenant", world.TENANTS)
def test_a_load_without_news_changes_no_row(upgraded: Upgraded, tenant: str) -> None:
    recorded, present = (choose(tables[tenant], tenant) for tables in (upgraded.expected["tables"], upgraded.tables[0]))
    assert present.keys() == recorded.keys()
    for name, table in recorded.items():
        assert present[name]["columns"] == table["columns"], name
        assert present[name]["rows"] == table["rows"], name


@pytest.mark.parametrize("tenant", world.TENANTS)
def test_each_stream_continues_where_it_was(upgraded: Upgraded, tenant: str) -> None:
    assets = upgraded.get_assets(0)
    for key, rows in upgraded.expected["rows_loaded"].items():
        if key.startswith(f"{tenant}/raw/"):
            assert (assets[RENAMED.get(key, key)]["status"], assets[RENAMED.get(key, key)]["rows_loaded"]) == ("success", rows), key


@pytest.mark.parametrize("tenant", world.TENANTS)
def test_every_asset_is_still_there(upgraded: Upgraded, tenant: str) -> None:
    assert {RENAMED.get(key, key) for key in upgraded.expected["assets"][tenant]} <= upgraded.get_assets(0).keys()


@pytest.mark.parametrize("tenant", world.TENANTS)
def test_new_rows_are_loaded_once_into_the_same_columns_as_the_old_ones(upgraded: Upgraded, tenant: str) -> None:
    recorded, present = (choose(tables[tenant], tenant) for tables in (upgraded.expected["tables"], upgraded.tables[1]))
    for name, (columns, values) in ADDED.items():
        before, after = recorded[name], present[name]
        # Which columns a release has added is its own affair; those that were there are filled.
        assert set(before["columns"]) <= set(after["columns"])
        old, new = cut(before, before["columns"]), cut(after, before["columns"])
        assert len(new) == len(old) + 1, name
        assert [row for row in new if row in old] == old, name
        assert list(values) in cut(after, list(columns)), name
    spend = cut(present["raw_ads.spend"], ["day", "channel"])
    assert spend == [[f"2024-01-0{step}", channel] for step in (1, 2, 3) for channel in ("search", "social")]


@pytest.mark.parametrize("tenant", world.TENANTS)
def test_old_streams_keep_the_first_forms(upgraded: Upgraded, tenant: str) -> None:
    table = upgraded.tables[1][tenant][f"{tenant}_fabric.stream_state"]
    assert {row[0] for row in cut(table, ["value_forms"])} == {"1"}
    assert len(table["rows"]) == 13
    warnings = {key.partition("/raw/")[2]: " ".join(asset["warnings"]) for key, asset in upgraded.get_assets(1).items() if key.startswith(f"{tenant}/raw/")}
    assert "the name of x (имя)" in warnings["lite/orders"]
    assert "lists as text in counts" in warnings["pg/things"]
    assert f"fabric migrate-values {tenant}" in warnings["crm/contacts"]
    assert "forms of an earlier release" not in warnings["lite/events"] + warnings["ads/spend"]


@pytest.mark.parametrize("tenant", world.TENANTS)
def test_sealed_secrets_are_read(upgraded: Upgraded, tenant: str) -> None:
    """The API requires the sealed token, and the login of the managed tenant is sealed too."""
    assert upgraded.get_assets(1)[f"{tenant}/raw/crm/contacts"]["status"] == "success"
    assert "crm_token" in upgraded.run("secrets", "list", tenant)


def test_dagsters_storage_opens_with_all_of_its_records(upgraded: Upgraded, monkeypatch: pytest.MonkeyPatch) -> None:
    home = upgraded.root / "data" / "dagster"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = instance.get_runs()
        assert len(runs) == 3 * len(world.TENANTS) + 2 * len(world.TENANTS)
        for keys in upgraded.expected["assets"].values():
            for key in keys:
                found = instance.fetch_materializations(dg.AssetKey(key.split("/")), limit=50).records
                assert len(found) == 5, key


@pytest.mark.parametrize("tenant", world.TENANTS)
def test_rejected_rows_are_listed_and_can_be_replayed(upgraded: Upgraded, tenant: str) -> None:
    columns = ["source", "stream", "reason", "raw"]
    platform = f"{tenant}_fabric.rejected_rows"
    recorded, present = cut(upgraded.expected["tables"][tenant][platform], columns), cut(upgraded.tables[0][tenant][platform], columns)
    assert present == recorded
    path = upgraded.root / "tenants" / f"{tenant}.yaml"
    text = path.read_text()
    path.write_text(
        text.replace("schema_contract: {columns: discard}", "schema_contract: evolve").replace(
            "schema_contract: {data_type: discard}", "schema_contract: evolve"
        )
    )
    try:
        upgraded.run("rejects", "replay", tenant, "--source", "exports", "--stream", "tickets")
        upgraded.run("rejects", "replay", tenant, "--source", "lite", "--stream", "codes")
    finally:
        path.write_text(text)
    tables = choose(upgraded.read()[tenant], tenant)
    assert ["20", "the contract discards it"] in cut(tables["raw_exports.tickets"], ["id", "surprise"])
    assert ["1e5", None, "many"] in cut(tables["raw_lite.codes"], ["code", "amount", "amount__v_text"])
    assert len(cut(tables["raw_lite.codes"], ["code"])) == 5


@contextlib.contextmanager
def changing(file: Path, **changes: str) -> Iterator[None]:
    """Change a text of a file for a while.

    Args:
        changes: `old` and `new`, by a number at their end.
    """
    text = changed = file.read_text()
    for name, old in changes.items():
        if name.startswith("old"):
            assert old in changed
            changed = changed.replace(old, changes[name.replace("old", "new")])
    file.write_text(changed)
    try:
        yield
    finally:
        file.write_text(text)


def test_prune_lists_nothing_of_an_upgraded_tenant_but_what_its_yaml_no_longer_names(upgraded: Upgraded) -> None:
    """The states and assets by which it knows the tables are an earlier release's."""
    assert json.loads(upgraded.run("prune", "--all", "--json")) == []
    with changing(upgraded.root / "tenants" / "old_duck.yaml", old="      shops: {}\n", new=""):
        (found,) = json.loads(upgraded.run("prune", "old_duck", "--json"))
    assert (found["schema"], found["name"], found["kept"]) == ("old_duck_raw_lite", "shops", "")


ADDED_FILES = {
    "seeds/sizes.csv": "size,label\n1,small\n",
    "snapshots/totals.yml": "snapshots: [{name: totals, relation: ref('order_totals'), config: {unique_key: orders, strategy: check, check_cols: [amount]}}]\n",
}


@lengths.AT_FULL_LENGTH
@pytest.mark.parametrize("tenant", world.TENANTS)
def test_an_upgraded_tenant_gets_deletes_a_seed_and_a_snapshot(upgraded: Upgraded, tenant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    follow = "deletes: {mode: soft, max: 50%}}"
    changes = {
        "old1": "orders: {primary_key: id, cursor: {field: updated_at}}",
        "new1": f"orders: {{primary_key: id, cursor: {{field: updated_at}}, {follow}",
        "old2": "cursor: {field: updated_at, param: since}}",
        "new2": f"cursor: {{field: updated_at, param: since}}, {follow}",
        "old3": "select: [order_totals]",
        "new3": "select: [order_totals, sizes, totals]",
    }
    for name, text in ADDED_FILES.items():
        file = upgraded.root / "dbt_project" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    lite, project = upgraded.root / "lite.sqlite", upgraded.root / "dbt_project"
    # As CHANGELOG.md tells those who have a project of their own.
    for macro in ("generate_schema_name.sql", "generate_alias_name.sql", "load_csv_rows.sql", "tenant_name.sql"):
        shutil.copy(ROOT / "dbt_project" / "macros" / macro, project / "macros")
    text = (project / "dbt_project.yml").read_text()
    (project / "dbt_project.yml").write_text(text.replace("seed-paths: []", "seed-paths: [seeds]").replace("snapshot-paths: []", "snapshot-paths: [snapshots]"))
    with changing(upgraded.root / "tenants" / f"{tenant}.yaml", **changes):
        # The first read of the keys has nothing to be compared with.
        run = json.loads(upgraded.run("run", tenant, "--select", "raw/lite/orders,raw/crm/contacts", "--json"))
        assert all("this is the first read of the source's keys" in " ".join(asset["warnings"]) for asset in run["tenants"][0]["assets"])
        with contextlib.closing(sqlite3.connect(lite)) as connection:
            row = connection.execute("select * from orders where id = 1").fetchone()
            connection.execute("delete from orders where id = 1")
            connection.commit()
        monkeypatch.setitem(world.CONTACTS, 1, [contact for contact in world.CONTACTS[1] if contact["id"] != 1])
        try:
            run = json.loads(upgraded.run("run", tenant, "--json", codes=(0, 1)))
        finally:
            with contextlib.closing(sqlite3.connect(lite)) as connection:
                connection.execute(f"insert into orders values ({', '.join('?' * len(row))})", row)
                connection.commit()
    statuses = {asset["key"].removeprefix(f"{tenant}/"): asset["status"] for asset in run["tenants"][0]["assets"]}
    assert statuses | {"seeds/sizes": "success", "snapshots/totals": "success"} == statuses
    tables = upgraded.read()[tenant]
    for table in ("raw_lite.orders", "raw_crm.contacts"):
        marked = [key for key, mark in cut(tables[f"{tenant}_{table}"], ["id", "_fabric_deleted_at"]) if mark]
        assert marked == ["1"], table
    assert cut(tables[f"{tenant}_seeds.sizes"], ["size", "label"]) == [["1", "small"]]
    assert cut(tables[f"{tenant}_snapshots.totals"], ["orders", "dbt_valid_to"]) == [["4", None]]


PRESENT = {
    "raw_lite.orders": (("id", "imya", "pricex", "amount"), ("4", "名", "4.5", "40.00")),
    "raw_lite.shops": (("ri_fu", "size"), ("2024-01-04", "4")),
    "raw_crm.contacts": (("id", "imya", "user_name", "address__gorod"), ("4", "Di", "di", "Moss")),
    "raw_exports.prices": (("code", "gorod"), ("1e6", "4.5")),
}


@pytest.mark.parametrize("tenant", lengths.choose(list(world.TENANTS), 1))
def test_values_are_migrated_once_and_the_next_load_finds_them(upgraded: Upgraded, tenant: str) -> None:
    """This test comes last, since it changes the data of the tests before it."""
    before = choose(upgraded.read()[tenant], tenant)
    planned = json.loads(upgraded.run("migrate-values", tenant, "--dry-run", "--json", codes=(0, 1)))
    assert choose(upgraded.read()[tenant], tenant) == before
    done = json.loads(upgraded.run("migrate-values", tenant, "--json", codes=(0, 1)))
    assert [{**each, "status": "migrated" if each["status"] == "planned" else each["status"]} for each in planned] == done
    streams = {f"{each['source']}.{each['stream']}": each for each in done}
    assert streams["lite.shops"]["status"] == streams["lite.orders"]["status"] == streams["crm.contacts"]["status"] == "migrated"
    assert streams["crm.contacts"]["renamed"] == {"contacts.x": "imya", "contacts.address__x": "address__gorod"}
    for each in done:
        # What cannot be derived names the way.
        assert each["status"] == "migrated" or "--full-refresh" in each["message"]
    again = json.loads(upgraded.run("migrate-values", tenant, "--json", codes=(0, 1)))
    assert {each["status"] for each in again if streams[f"{each['source']}.{each['stream']}"]["status"] == "migrated"} == {"current"}

    upgraded.run("run", tenant, codes=(0, 1))
    after = choose(upgraded.read()[tenant], tenant)
    for name, (columns, values) in PRESENT.items():
        assert "x" not in after[name]["columns"]
        assert len(after[name]["columns"]) == len(before[name]["columns"])
        assert list(values) in cut(after[name], list(columns))
    assert {name: len(table["rows"]) for name, table in after.items()} == {name: len(table["rows"]) for name, table in before.items()}
