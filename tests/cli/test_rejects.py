"""`fabric rejects`: what it prints and writes, in which no spreadsheet finds a formula to run."""

import codecs
import contextlib
import csv
import io
import json
import re
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.config.loader import load_fleet
from fabric_assets.errors import ConfigurationError
from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest
from fabric_assets.settings import Settings

WriteTenant = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("settings_environ")


@pytest.fixture
def inbox(settings: Settings) -> Path:
    """Holds what the source shop reads; the lines of the source logs are in a folder beside it."""
    (settings.data_dir / "logs").mkdir()
    folder = settings.data_dir / "exports"
    folder.mkdir()
    return folder


@pytest.fixture
def logs(inbox: Path) -> Path:
    return inbox.parent / "logs"


def write_config(write_tenant: WriteTenant, name: str = "acme", **keys: Any) -> None:
    items = {"glob": "*.csv", "format": "csv", **keys}
    lines = {"glob": "*.jsonl", "format": "jsonl", "primary_key": "id"}
    shop = {"type": "files", "path": "exports", "streams": {"items": items}}
    write_tenant(name, {"sources": {"shop": shop, "logs": {"type": "files", "path": "logs", "streams": {"lines": lines}}}})


def load(settings: Settings, tenant: str = "acme") -> None:
    config = load_fleet(settings).tenants[tenant].config
    for source in config.sources:
        run_load(LoadRequest(config, source, (), settings))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rejects", *arguments])


def read_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_list_shows_the_origin_of_each_row_and_why_it_was_rejected(settings: Settings, inbox: Path, write_tenant: WriteTenant) -> None:
    (inbox / "a.csv").write_text("id,n\n1,2\n3\n")
    write_config(write_tenant)
    load(settings)
    shown = run("list", "acme")
    assert shown.exit_code == 0
    assert "shop.items" in shown.stdout and "a.csv" in shown.stdout and "ragged_row" in shown.stdout
    assert "line 3: 2 fields expected, 1 found" in shown.stdout

    (row,) = json.loads(run("list", "acme", "--json").stdout)
    assert {key: row[key] for key in ("tenant", "source", "stream", "origin", "row_number", "reason", "raw", "raw_truncated")} == {
        "tenant": "acme",
        "source": "shop",
        "stream": "items",
        "origin": "a.csv",
        "row_number": 2,
        "reason": "ragged_row",
        "raw": "3",
        "raw_truncated": False,
    }
    assert json.loads(run("list", "acme", "--stream", "lines", "--json").stdout) == []


def test_a_row_of_a_table_is_named_by_its_key(settings: Settings, write_tenant: WriteTenant, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(sqlite3.connect(settings.data_dir / "orders.db")) as database, database:
        database.execute("create table orders (id integer, line integer, amount)")
        database.execute("insert into orders values (7, 1, 10)")
    orders = {"primary_key": ["id", "line"], "schema_contract": "discard"}
    shop = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {"orders": orders}}
    monkeypatch.setenv("SHOP_URL", f"sqlite:///{settings.data_dir}/orders.db")
    write_tenant("acme", {"sources": {"shop": shop}})
    load(settings)
    with contextlib.closing(sqlite3.connect(settings.data_dir / "orders.db")) as database, database:
        database.execute("insert into orders values (7, 2, 'much')")
    load(settings)
    assert "id 7, line 2" in run("list", "acme").stdout


def test_a_long_list_says_how_many_rows_are_shown(settings: Settings, inbox: Path, write_tenant: WriteTenant) -> None:
    (inbox / "a.csv").write_text("id,n\n1,2\n" + "3\n" * 5)
    write_config(write_tenant)
    load(settings)
    shown = run("list", "--all", "--limit", "2", "--json")
    assert len(json.loads(shown.stdout)) == 2
    assert "acme: the first 2 of 5 rejected rows" in shown.stderr


def test_tenants_without_rejected_rows_show_no_rows(write_tenant: WriteTenant) -> None:
    write_config(write_tenant)
    for command in ("list", "replay"):
        result = run(command, "acme")
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no rejected rows\n")


def test_an_export_has_the_columns_of_the_source_and_the_reasons(settings: Settings, inbox: Path, logs: Path, write_tenant: WriteTenant) -> None:
    write_config(write_tenant, schema_contract="discard")
    (inbox / "a.csv").write_text("id,n,reason\n1,2,x\n")
    (logs / "a.jsonl").write_text('{"id": 1, "tags": ["a"]}\n')
    load(settings)
    (inbox / "b.csv").write_text('id,n,reason\n2,many,"y, z"\n3\n')
    (logs / "b.jsonl").write_text('{"id": 2}\n{"tags": ["b"], "ok": true}\n')
    load(settings)
    keyless, mismatch, ragged = read_csv(run("export", "acme").stdout)
    assert list(mismatch)[:9] == ["id", "tags", "ok", "_fabric_file", "_fabric_file_sha256", "_fabric_row", "_fabric_order", "n", "reason"]
    assert [mismatch[name] for name in ("id", "n", "reason", "rejected_reason", "column", "origin", "row_number", "raw")] == [
        *("2", "many", "y, z", "type_mismatch", "n", "b.csv", "1", ""),
    ]
    assert [ragged[name] for name in ("id", "n", "rejected_reason", "origin", "row_number", "raw")] == ["", "", "ragged_row", "b.csv", "2", "3"]
    assert [keyless[name] for name in ("tenant", "source", "stream", "tags", "ok", "rejected_reason")] == ["acme", "logs", "lines", '["b"]', "true", "null_key"]


FORMULAS = ["=cmd()", "+1", "-1", "@x", "\tx", "\rx", "\uff1d1", "\uff0b1", "\uff0d1", "\uff201"]


def test_no_cell_of_an_export_is_a_formula_and_numbers_stay_numbers(settings: Settings, logs: Path, write_tenant: WriteTenant) -> None:
    write_config(write_tenant)
    rows: list[dict[str, Any]] = [{"=id": text, "n": -1, "x": -2.5, "plain": "a=b"} for text in FORMULAS]
    (logs / "=a.jsonl").write_text("".join(json.dumps({"id": None, **row}) + "\n" for row in rows) + '{"id": 1, "n": -1, "x": -2.5}\n=broken\n')
    load(settings)
    text = run("export", "acme").stdout
    found = read_csv(text)
    assert [row["'=id"] for row in found] == [*(f"'{value}" for value in FORMULAS), ""]
    assert {(row["n"], row["x"], row["plain"]) for row in found[:-1]} == {("-1", "-2.5", "a=b")}
    assert {row["origin"] for row in found} == {"'=a.jsonl"}
    assert found[-1]["raw"] == "'=broken"

    raw = run("export", "acme", "--raw")
    assert [row["=id"] for row in read_csv(raw.stdout)][:-1] == FORMULAS
    assert "open the file in no spreadsheet" in raw.stderr


def test_a_negative_decimal_stays_a_number(settings: Settings, inbox: Path, write_tenant: WriteTenant) -> None:
    from decimal import Decimal

    import pyarrow as pa
    import pyarrow.parquet as pq

    write_tenant(
        "acme",
        {"sources": {"shop": {"type": "files", "path": "exports", "streams": {"items": {"glob": "*", "format": "parquet", "primary_key": "id"}}}}},
    )
    rows = {"id": [1, None], "price": pa.array([Decimal("1.50"), Decimal("-1.50")]), "note": ["a", "-1.50"]}
    pq.write_table(pa.table(rows), inbox / "a.parquet")
    load(settings)
    (row,) = read_csv(run("export", "acme").stdout)
    assert (row["price"], row["note"]) == ("-1.50", "'-1.50")


def test_an_exported_file_is_private_and_its_content_is_reported(settings: Settings, inbox: Path, write_tenant: WriteTenant, tmp_path: Path) -> None:
    (inbox / "a.csv").write_text("id,n\n1,2\n=3\n")
    write_config(write_tenant)
    load(settings)
    out = tmp_path / "rejects.csv"
    result = run("export", "acme", "--out", str(out), "--json")
    assert json.loads(result.stdout) == {"file": str(out), "rows": 1, "neutralised": 1, "raw": False}
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert out.read_bytes().startswith(codecs.BOM_UTF8), "without it a spreadsheet reads Windows-1252"
    assert read_csv(out.read_text("utf-8-sig"))[0]["raw"] == "'=3"
    assert not run("export", "acme").stdout.startswith("\ufeff")
    assert isinstance(run("export", "acme", "--json").exception, ConfigurationError)
    for nowhere in (tmp_path / "missing" / "x.csv", out / "x.csv"):
        assert re.search("cannot be written: .*\n  remedy: name a file in a folder", str(run("export", "acme", "--out", str(nowhere)).exception))


def test_a_replay_reports_the_result_of_each_stream(settings: Settings, inbox: Path, write_tenant: WriteTenant) -> None:
    write_config(write_tenant, schema_contract="discard")
    (inbox / "a.csv").write_text("id,n\n1,2\n")
    load(settings)
    (inbox / "b.csv").write_text("id,n\n2,many\n3\n")
    load(settings)
    again = run("replay", "acme")
    assert (again.exit_code, again.stdout) == (0, "acme shop.items: 0 replayed; 1 rejected again; 1 cannot be replayed (no whole row was kept)\n")
    write_config(write_tenant)
    (result,) = json.loads(run("replay", "acme", "--source", "shop", "--json").stdout)
    assert (result["tenant"], result["replayed"], result["rejected"], result["unreadable"]) == ("acme", 1, 0, 1)

    (inbox / "c.csv").write_text("id,n\n4,4\nx,5\n")
    write_config(write_tenant, schema_contract="discard")
    load(settings)
    write_config(write_tenant, schema_contract="freeze")
    failed = run("replay", "acme")
    assert failed.exit_code == 1
    assert "schema_contract.data_type is freeze" in failed.stdout


@pytest.mark.parametrize(("option", "value", "nearest"), [("--source", "shp", "shop"), ("--stream", "item", "items")])
def test_a_misspelt_name_is_answered_with_the_nearest(write_tenant: WriteTenant, option: str, value: str, nearest: str) -> None:
    write_config(write_tenant)
    error = run("list", "acme", option, value).exception
    assert isinstance(error, ConfigurationError)
    assert f"'{value}'; did you mean '{nearest}'?" in str(error)


def test_a_broken_tenant_does_not_stop_the_others(settings: Settings, inbox: Path, write_tenant: WriteTenant) -> None:
    (inbox / "a.csv").write_text("id,n\n1,2\n3\n")
    write_config(write_tenant)
    write_tenant("broken", {"sources": {"shop": {"type": "nothing"}}})
    load(settings)
    result = run("list", "--all", "--json")
    assert result.exit_code == 2
    assert [row["tenant"] for row in json.loads(result.stdout)] == ["acme"]
    assert "broken.yaml" in result.stderr
