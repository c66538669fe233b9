"""The parts of an offboarding, each with what could go wrong in it: exports, local data, buckets, the code location."""

import contextlib
import json
import resource
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import psycopg2
import pyarrow.parquet as pq
import pytest

from fabric_assets import naming
from fabric_assets.config.loader import load_fleet
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.drivers.postgres_destination import split_postgres_url
from fabric_assets.errors import ConfigurationError, DestinationError
from fabric_assets.factories.broken import SENSOR
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.offboarding.buckets import count_objects, delete_objects
from fabric_assets.offboarding.certificate import build_certificate, to_markdown
from fabric_assets.offboarding.duckdb_file import DuckDbFile
from fabric_assets.offboarding.export import MANIFEST, check_export, export_tables, prepare_export
from fabric_assets.offboarding.journal import open_journal
from fabric_assets.offboarding.local_data import delete_paths, find_local_data, get_foreign_paths
from fabric_assets.offboarding.postgres_schemas import PostgresSchemas
from fabric_assets.offboarding.tenant_name_matcher import TenantNameMatcher
from fabric_assets.offboarding.warehouses import Warehouse
from fabric_assets.security.roles.entitlements import ServerEntitlements, ServerLogin
from fabric_assets.settings import Settings
from fabric_assets.warehouse.lease import warehouse_lease
from tests.support.services import Bucket

# --- exports


def make_file(folder: Path, *statements: str) -> DuckDbFile:
    with contextlib.closing(duckdb.connect(str(folder / "acme.duckdb"))) as connection:
        for statement in statements:
            connection.execute(statement)
    return DuckDbFile("acme", folder / "acme.duckdb")


def export(warehouse: Warehouse, folder: Path) -> dict[str, Any]:
    prepare_export(folder, {"at": "now"})
    return export_tables([warehouse], folder, "acme", lambda line: None)


KINDS = {
    "n": ("decimal(38, 4)", "'1234567890123456789012345678901234.0001'", Decimal("1234567890123456789012345678901234.0001")),
    "h": ("hugeint", "-170141183460469231731687303715884105727", Decimal("-170141183460469231731687303715884105727")),
    "t": ("timestamptz", "'2026-01-01 12:00:00+02'", datetime(2026, 1, 1, 10, tzinfo=UTC)),
    "s": ("timestamp", "'2026-01-01 12:00:00.000001'", datetime(2026, 1, 1, 12, 0, 0, 1)),
    "j": ("json", "'{\"a\": [1, null]}'", '{"a": [1, null]}'),
    "a": ("decimal(5, 2)[]", "[1.5, null]", [Decimal("1.50"), None]),
    "m": ("struct(x integer, y varchar)", "{'x': 1, 'y': 'z'}", {"x": 1, "y": "z"}),
    "d": ("date", "'2026-02-28'", date(2026, 2, 28)),
    "c": ("time", "'23:59:59'", time(23, 59, 59)),
    "i": ("interval", "interval 3 days", "3 days"),
    "u": ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "b": ("blob", "'\\x00\\xFF'::blob", b"\x00\xff"),
    "e": ("enum('x', 'y')", "'y'", "y"),
    "z": ("varchar", "null", None),
}


def test_every_kind_of_value_is_kept_exactly(tmp_path: Path) -> None:
    columns = ", ".join(f'"{name}" {kind}' for name, (kind, _, _) in KINDS.items())
    values = ", ".join(value for _, value, _ in KINDS.values())
    warehouse = make_file(tmp_path, f"create table kinds ({columns})", f"insert into kinds values ({values})", "create view seen as select d from kinds")
    result = export(warehouse, tmp_path / "out")
    (row,) = pq.read_table(tmp_path / "out" / "main" / "kinds.parquet").to_pylist()
    assert row == {name: value for name, (_, _, value) in KINDS.items()}
    assert pq.read_table(tmp_path / "out" / "main" / "seen.parquet").to_pylist() == [{"d": date(2026, 2, 28)}]
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert [(entry["table"], entry["kind"], entry["rows"]) for entry in manifest["files"]] == [("kinds", "table", 1), ("seen", "view", 1)]
    assert manifest["files"][0]["columns"]["n"] == {"type": "DECIMAL(38,4)", "kept_as": "decimal128(38, 4)"}
    assert manifest["files"] == result["files"]


def test_no_name_leads_out_of_the_folder_and_no_two_names_into_one_file(tmp_path: Path) -> None:
    names = ["../../evil", "..", ".", "a/b", "a%2Fb", "x" * 300, "x" * 299 + "y", "ümläut"]
    quoted = ['"' + name.replace('"', '""') + '"' for name in names]
    warehouse = make_file(tmp_path, *(f"create table {name} as select {number} as n" for number, name in enumerate(quoted)), 'create schema "../up"')
    result = export(warehouse, tmp_path / "deep" / "out")
    folder = (tmp_path / "deep" / "out").resolve()
    files = {(folder / entry["file"]).resolve(): entry for entry in result["files"]}
    assert len(files) == len(names)
    assert all(file.is_relative_to(folder) for file in files)
    assert {entry["table"]: pq.read_table(file).to_pylist() for file, entry in files.items()} == {name: [{"n": number}] for number, name in enumerate(names)}


def test_an_export_that_was_changed_or_lost_stops_what_would_delete(tmp_path: Path) -> None:
    result = export(make_file(tmp_path, "create table kinds as select 1 as n"), tmp_path / "out")
    check_export(result)
    file = tmp_path / "out" / result["files"][0]["file"]
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(DestinationError, match="another one than was written"):
        check_export(result)


@pytest.fixture
def with_broken_views(tmp_path: Path) -> DuckDbFile:
    return make_file(
        tmp_path,
        "create table gone as select 1 as n",
        "create view late as select n from gone",
        "drop table gone",
        # The last of so many rows: the first ones have been read by then, and the driver has no more than an OSError for it.
        "create table texts as select range::varchar as n from range(300000) union all select 'x'",
        "create view numbers as select n::bigint as n, n::double as d from texts",
    )


def test_a_view_that_the_database_cannot_execute_is_named_and_left_out(with_broken_views: DuckDbFile, tmp_path: Path) -> None:
    said = list[str]()
    (tmp_path / "out").mkdir()
    # Of a call that was killed while it wrote its mark.
    (tmp_path / "out" / "..export.json.k3x9").write_text('{"at"')
    prepare_export(tmp_path / "out", {"at": "now"})
    assert [file.name for file in (tmp_path / "out").iterdir()] == [".export.json"]
    left = export_tables([with_broken_views], tmp_path / "out", "acme", said.append)["views_left_out"]
    assert {entry["view"]: entry["reason"] for entry in left} == {"late": "CatalogException", "numbers": "ConversionException"}
    for entry in left:
        assert f"not exported: the view main.{entry['view']}, which the database cannot execute ({entry['reason']})" in said
    assert {file.name for file in (tmp_path / "out" / "main").iterdir()} == {"texts.parquet"}


def test_the_certificate_names_what_was_not_exported(with_broken_views: DuckDbFile, tmp_path: Path) -> None:
    (settings_dir := tmp_path / "data").mkdir()
    journal = open_journal("acme", settings_dir, {})
    found = {"relations": [], "files": {}, "buckets": {}, "history": {}, "database": {}, "secrets": []}
    journal.finish("survey", {"found": found, "destination": "duckdb", "searched": [], "outside": []})
    assert "Not exported" not in to_markdown(build_certificate("acme", journal, []))
    journal.finish("export", export(with_broken_views, tmp_path / "out"))
    _, heading, after = to_markdown(build_certificate("acme", journal, [])).partition("\n## Not exported\n")
    assert heading
    named = after.partition("\n## ")[0]
    assert "| main | late | CatalogException |" in named
    assert "| main | numbers | ConversionException |" in named


def test_a_view_that_does_not_fit_on_the_disk_stops_the_export(tmp_path: Path) -> None:
    warehouse = make_file(tmp_path, "create table seed as select 'x' as x", "create view wide as select hash(range) as n from range(200000), seed")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            export(warehouse, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert export(warehouse, tmp_path / "out")["views_left_out"] == []


def test_a_postgres_view_is_left_out_for_its_own_fault_alone(postgres_database: str, tmp_path: Path) -> None:
    with contextlib.closing(psycopg2.connect(postgres_database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create schema acme_marts; create table acme_marts.texts as select n::text from generate_series(1, 300000) as n")
        cursor.execute("insert into acme_marts.texts values ('x'); create view acme_marts.numbers as select n::integer from acme_marts.texts")
    parts = split_postgres_url(postgres_database, "here")
    login = ServerLogin("here", parts["host"], parts["port"], parts["dbname"], parts["user"], parts["password"], {})
    entitlements = ServerEntitlements("acme", parts["dbname"], ("acme_marts",))
    warehouse = PostgresSchemas(TenantNameMatcher("acme"), entitlements, login=login, reader=None, is_managed=False)
    assert export(warehouse, tmp_path / "out")["views_left_out"] == [{"schema": "acme_marts", "view": "numbers", "reason": "InvalidTextRepresentation"}]

    with contextlib.closing(psycopg2.connect(postgres_database)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create view acme_marts.lost as select pg_terminate_backend(pg_backend_pid()), n from acme_marts.texts")
    with pytest.raises(psycopg2.OperationalError, match="terminating connection|closed the connection"):
        export(warehouse, tmp_path / "out")


# --- local data


def get_config(**source: Any) -> TenantConfig:
    streams = {"spend": {"glob": "*.csv", "columns": {"day": {"type": "date"}}}}
    return TenantConfig.model_validate({"version": 1, "tenant": "acme", "sources": {"ads": {"type": "csv_import", "streams": streams, **source}}})


def test_a_link_is_removed_and_what_it_leads_to_is_named_and_left(settings: Settings, tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "theirs.csv").touch()
    (settings.data_dir / "inbox" / "acme").mkdir(parents=True)
    (settings.data_dir / "inbox" / "acme" / "ads").symlink_to(mount)
    (settings.data_dir / "loads" / "acme" / "shop").mkdir(parents=True)
    (settings.data_dir / "loads" / "acme" / "shop" / "out").symlink_to(mount)
    local_data = find_local_data("acme", settings.data_dir, get_config(path="inbox/acme/ads"))
    for paths in local_data.values():
        delete_paths(paths)
    assert (mount / "theirs.csv").exists()
    assert not (settings.data_dir / "inbox" / "acme").exists()
    assert not (settings.data_dir / "loads" / "acme").exists()
    assert get_foreign_paths("acme", settings.data_dir, get_config(path=str(mount))) == [f"folder {mount}"]


@pytest.mark.parametrize("path", ["inbox/acme/ads", "inbox/acme", "drop/acme"])
def test_an_inbox_is_found_once_wherever_below_the_data_folder_it_lies(settings: Settings, path: str) -> None:
    (settings.data_dir / path).mkdir(parents=True)
    (settings.data_dir / path / "a.csv").touch()
    found = find_local_data("acme", settings.data_dir, get_config(path=path))["inbox"]
    assert [str(folder.relative_to(settings.data_dir)) for folder in found] == ["drop/acme" if path.startswith("drop") else "inbox/acme"]


def test_objects_of_an_inbox_in_a_bucket_go_and_those_beside_it_stay(settings: Settings, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("acme/ads/a.csv", "acme/ads/archive/b.csv", "acme/ads_old/c.csv", "acme_two/ads/d.csv"):
        s3.put(key, b"day\n")
    monkeypatch.setenv("S3_KEY", s3.access_key_id)
    monkeypatch.setenv("S3_SECRET", s3.secret_access_key)
    login = {"access_key_id": {"env": "S3_KEY"}, "secret_access_key": {"env": "S3_SECRET"}, "endpoint_url": s3.endpoint_url, "region": s3.region}
    config = get_config(path=f"s3://{s3.name}/acme/ads", credentials=login)
    assert count_objects(config, settings) == {f"s3://{s3.name}/acme/ads": {"objects": 2, "bytes": 8}}
    delete_objects(config, settings)
    assert count_objects(config, settings) == {f"s3://{s3.name}/acme/ads": {"objects": 0, "bytes": 0}}
    left = s3.client.list_objects_v2(Bucket=s3.name)["Contents"]
    assert [entry["Key"] for entry in left] == ["acme/ads_old/c.csv", "acme_two/ads/d.csv"]


# --- the mark


def test_the_code_location_shows_who_has_gone_and_loads_the_others_even_if_it_is_strict(settings: Settings, write_tenant: Callable[..., Path]) -> None:
    source = {"shop": {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {"orders": {"primary_key": "id"}}}}
    for tenant in ("acme", "acme_two"):
        write_tenant(tenant, {"sources": source, "schedules": {"nightly": {"cron": "0 3 * * *"}}})
    open_journal("acme", settings.data_dir, {})
    definitions = build_definitions(replace(settings, strict=True))
    repository = definitions.get_repository_def()
    assert {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()} == {
        "acme/config",
        "acme_two/isolation",
        "acme_two/raw/shop/orders",
    }
    assert "is being offboarded" in str(repository.asset_graph.get(dg.AssetKey(["acme", "config"])).description)
    # Nothing that could record it: no op, no check, no schedule, no sensor.
    assert not repository.asset_graph.get(dg.AssetKey(["acme", "config"])).is_executable
    assert {key.asset_key.to_user_string() for key in repository.asset_graph.asset_check_keys} == {"acme_two/isolation"}
    assert {schedule.name for schedule in repository.schedule_defs} == {"acme_two__nightly", "fabric__isolation"}
    assert SENSOR not in {sensor.name for sensor in repository.sensor_defs}


def test_a_waiter_for_a_lease_is_refused_once_the_offboarding_has_begun(settings: Settings) -> None:
    with warehouse_lease("acme", settings):
        pass
    open_journal("acme", settings.data_dir, {})
    naming.lock_file(settings.data_dir, "acme").unlink()
    with pytest.raises(ConfigurationError, match="is being offboarded, and takes no work"), warehouse_lease("acme", settings):
        pytest.fail("it works")
    assert not naming.lock_file(settings.data_dir, "acme").exists()
    with warehouse_lease("acme_two", settings):
        pass


def test_the_loader_gives_a_tenant_that_has_gone_to_who_takes_it_away_alone(settings: Settings, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", {})
    open_journal("acme", settings.data_dir, {})
    assert "acme" in load_fleet(settings).broken
    assert "acme" in load_fleet(settings, offboarded=True).tenants
