"""dlt sources: hints, types, state, tables that rows name, what is refused, and the versions of dlt that are admitted."""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.config.connectors_file import load_connectors
from fabric_assets.connectors.bridge.installing.checking import find_findings
from fabric_assets.connectors.bridge.installing.environments import get_environment
from fabric_assets.connectors.bridge.installing.programs import DLT_REQUIREMENT
from fabric_assets.connectors.bridge.installing.specs import find_mistakes, find_unknown_streams
from fabric_assets.errors import ConfigurationError, FabricError, SourceError, SourceUnavailable
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.support.dlt_rows import SOURCE, install_from_index
from tests.support.shop import Tenant, write_secret_file


class Source:
    """A tenant with the source `web`, read by the tests' own dlt source."""

    def __init__(self, settings: Settings, warehouse: str | None = None) -> None:
        self.folder = settings.data_dir / "rows"
        self.folder.mkdir(exist_ok=True)
        self.tenant = Tenant(settings, {}, warehouse=warehouse, source_name="web")

    def declare(self, code: str = "", *, connector: str = "rows", arguments: Mapping[str, Any] | None = None, **streams: Mapping[str, Any]) -> None:
        write_secret_file(self.tenant.settings, "token", "c4n4ry-token")
        own = {"folder": "{rows}", "code": textwrap.dedent(code)} if arguments is None else dict(arguments)
        self.tenant.source = {
            "type": "dlt",
            "connector": connector,
            "folders": {"rows": "rows"},
            "arguments": own,
            "secrets": {"token": {"file": "token"}} if arguments is None else {},
            "retries": {"max": 0},
            "streams": {name: dict(stream) for name, stream in (streams or {"orders": {}}).items()},
        }

    def load(self, *streams: str, full_refresh: bool = False) -> dict[str, Any]:
        return self.tenant.load(*streams, full_refresh=full_refresh)

    def read(self, stream: str, *columns: str) -> list[tuple[Any, ...]]:
        return self.tenant.read(stream, *columns)

    def read_types(self, table: str) -> dict[str, str]:
        found = self.tenant.ask(f"select column_name, data_type from information_schema.columns where table_schema = 'acme_raw_web' and table_name = '{table}'")
        return {name: kind.lower() for name, kind in found if not name.startswith("_dlt_")}


@pytest.fixture
def source(request: pytest.FixtureRequest, settings: Settings, installed_dlt: Mapping[str, Path]) -> Source:
    """On DuckDB, or on the destination that the test names."""
    url = request.getfixturevalue("postgres_database") if getattr(request, "param", "duckdb") == "postgres" else None
    return Source(replace(settings, **installed_dlt), url)


on_both = pytest.mark.parametrize("source", ["duckdb", "postgres"], indirect=True)


# --- rows


@on_both
def test_values_keep_their_types_and_lists_become_tables(source: Source) -> None:
    source.declare(
        """
        hints = {"price": {"data_type": "decimal", "precision": 10, "scale": 2}, "raw": {"data_type": "json"}}

        @dlt.resource(primary_key="id", write_disposition="merge", columns=hints)
        def orders():
            print("this is no message")
            yield {
                "id": 1,
                "price": decimal.Decimal("12.30"),
                "total": decimal.Decimal("123456789012345678.123456789"),
                "at": datetime.datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc),
                "day": datetime.date(2024, 1, 2),
                "big": 2**63 - 1,
                "raw": {"a": [1, 2]},
                "lines": [{"sku": "x", "n": 1}, {"sku": "y", "n": 2}],
                "address": {"city": "Köln"},
                "nothing": None,
            }
        resources = [orders]
        """
    )
    source.load()
    (row,) = source.read("orders", "id", "price", "total", "at", "day", "big", "address__city")
    at = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert row == (1, Decimal("12.30"), Decimal("123456789012345678.123456789"), at, date(2024, 1, 2), 2**63 - 1, "Köln")
    assert source.read("orders__lines", "sku", "n") == [("x", 1), ("y", 2)]
    types = source.read_types("orders")
    assert types["raw"].startswith("json")
    assert "nothing" not in types


def test_resources_are_read_from_their_cursor_and_a_replaced_one_as_a_whole(source: Source) -> None:
    source.declare(connector="numbers", arguments={"upto": 5}, numbers={})
    assert [source.load()["numbers"].rows_loaded for _ in range(2)] == [5, 0]
    source.declare(connector="numbers", arguments={"upto": 6}, numbers={})
    assert source.load()["numbers"].rows_loaded == 1
    assert source.read("numbers", "id") == [(number,) for number in range(1, 7)]
    # The YAML wins, and what the cursor has seen does not count.
    source.declare(connector="numbers", arguments={"upto": 3}, numbers={"write_disposition": "replace"})
    source.load()
    assert source.read("numbers", "id") == [(1,), (2,), (3,)]


def test_rows_go_to_the_tables_that_they_name(source: Source) -> None:
    source.declare(
        """
        @dlt.resource(primary_key="id", write_disposition="merge", table_name=lambda row: row["kind"])
        def events():
            yield [{"id": number, "kind": "clicks" if number % 2 else "views"} for number in range(4)]

        @dlt.resource(primary_key="id", write_disposition="merge")
        def orders():
            yield {"id": 1}
            yield dlt.mark.with_table_name({"id": 2}, "returns")
        resources = [events, orders]
        """,
        events={},
        orders={},
    )
    for _ in range(2):
        source.load()
        assert (source.read("clicks", "id"), source.read("views", "id")) == ([(1,), (3,)], [(0,), (2,)])
        assert (source.read("orders", "id"), source.read("returns", "id")) == ([(1,)], [(2,)])


@on_both
def test_arrow_tables_are_loaded_as_they_are(source: Source) -> None:
    source.declare(
        """
        import pyarrow as pa

        @dlt.resource(primary_key="id", write_disposition="merge")
        def orders():
            yield pa.table({"id": pa.array(range(1000), pa.int32()), "price": pa.array([decimal.Decimal("1.25")] * 1000, pa.decimal128(9, 2))})
        resources = [orders]
        """
    )
    for _ in range(2):
        source.load()
    assert source.tenant.ask("select count(*), sum(price), max(id) from acme_raw_web.orders") == [(1000, Decimal("1250.00"), 999)]


def test_objects_that_lie_deeper_than_the_source_allows_are_kept_as_json(source: Source) -> None:
    source.declare(
        """
        @dlt.resource(primary_key="id", write_disposition="merge", max_table_nesting=1)
        def orders():
            yield {"id": 1, "lines": [{"sku": "x", "tags": ["a"]}], "address": {"geo": {"lat": 1}}}
        resources = [orders]
        """
    )
    source.load()
    assert json.loads(source.read("orders", "address__geo")[0][0]) == {"lat": 1}
    assert json.loads(source.read("orders__lines", "tags")[0][0]) == ["a"]


def test_of_two_rows_with_a_key_the_newest_by_the_hint_stays(source: Source) -> None:
    source.declare(
        """
        @dlt.resource(primary_key="id", write_disposition="merge", columns={"seen": {"dedup_sort": "desc"}})
        def orders():
            yield [{"id": 1, "seen": 2, "note": "newer"}, {"id": 1, "seen": 1, "note": "older"}]
        resources = [orders]
        """
    )
    source.load()
    assert source.read("orders", "note") == [("newer",)]


# --- state


def test_the_state_of_a_parent_and_of_the_source_covers_all_streams(source: Source) -> None:
    code = """
        @dlt.resource(selected=False)
        def pages(number=dlt.sources.incremental("id", initial_value=0)):
            yield [{"id": each} for each in range(number.last_value + 1, 4)]

        @dlt.transformer(data_from=pages, primary_key="id", write_disposition="merge")
        def orders(rows):
            yield [{"id": row["id"]} for row in rows]

        @dlt.resource(primary_key="id", write_disposition="merge")
        def stores():
            dlt.current.source_state().setdefault("seen", []).append(1)
            yield {"id": len(dlt.current.source_state()["seen"])}
        resources = [orders, stores]
    """
    source.declare(code, orders={}, stores={})
    assert source.load()["orders"].rows_loaded == 3
    assert source.load()["orders"].rows_loaded == 0
    assert source.read("stores", "id") == [(1,), (2,)]
    with pytest.raises(ConfigurationError, match="keeps one state for stores, so they are loaded together"):
        source.load("orders", full_refresh=True)
    assert source.load(full_refresh=True)["orders"].rows_loaded == 3


def test_a_resource_that_fails_spares_the_others_and_its_state_stays(source: Source) -> None:
    code = """
        @dlt.resource(primary_key="id", write_disposition="merge")
        def orders(number=dlt.sources.incremental("id", initial_value=0)):
            yield [{"id": each} for each in range(number.last_value + 1, 4)]
            if region == "us":
                raise ValueError(f"the login {token} is not known")

        @dlt.resource(primary_key="id", write_disposition="merge")
        def stores():
            yield {"id": 1}
        resources = [orders, stores]
    """
    source.declare(code, orders={}, stores={})
    source.tenant.source["arguments"]["region"] = "us"
    with pytest.raises(SourceUnavailable, match="the resource orders of rows failed: ValueError: the login .* is not known") as caught:
        source.load()
    assert "c4n4ry" not in str(caught.value)
    assert source.read("stores", "id") == [(1,)]
    source.declare(code, orders={}, stores={})
    assert source.load()["orders"].rows_loaded == 3


def test_a_resource_that_appends_all_its_rows_each_time_is_refused(source: Source) -> None:
    code = """
        @dlt.resource
        def orders():
            yield {"id": 1}
        resources = [orders]
    """
    source.declare(code)
    with pytest.raises(SourceError, match="appends its rows and keeps no state: each run would load all of them again"):
        source.load()
    for declared, rows in (({"primary_key": "id"}, 1), ({"write_disposition": "append"}, 2)):
        source.declare(code, orders=declared)
        source.load()
        assert len(source.read("orders", "id")) == rows


def test_of_a_source_that_ends_the_process_nothing_is_kept(source: Source) -> None:
    code = """
        @dlt.resource(primary_key="id", write_disposition="merge")
        def orders():
            yield [{"id": number} for number in range(5000)]
            os._exit(0)
        resources = [orders]
    """
    source.declare(code)
    with pytest.raises(SourceUnavailable, match="ended in the middle of its resources, without an error"):
        source.load()
    source.declare(code.replace("os._exit(0)", ""))
    assert source.load()["orders"].rows_loaded == 5000


@pytest.mark.parametrize(
    "message",
    [
        {"type": "SCHEMA", "stream": "others", "key": [], "disposition": "merge", "types": {}, "newest_by": None, "schema": {}},
        {"type": "SCHEMA", "stream": "orders"},
        {"type": "SCHEMA", "stream": "orders", "key": 5, "disposition": "merge", "types": {}, "newest_by": None, "schema": {}},
        {"type": "TABLE", "stream": "orders", "arrow": "AAAA"},
        {"type": "TABLE", "stream": "others/x", "arrow": "AAAA"},
        {"type": "FAILED"},
        {"type": "STATE"},
    ],
)
def test_a_source_that_writes_messages_of_its_own_is_refused(source: Source, message: dict[str, Any]) -> None:
    """Its code runs in our program's process, and finds its output."""
    source.declare(
        f"""
        import gc
        from dlt_program.output import Output

        @dlt.resource(primary_key="id", write_disposition="merge")
        def orders():
            yield {{"id": 1}}
            (output,) = [each for each in gc.get_objects() if type(each) is Output]
            output._file.write({json.dumps(message)!r}.encode() + bytes([10]))
        resources = [orders]
        """
    )
    with pytest.raises(SourceError, match="that the program for dlt sources does not write"):
        source.load()


@pytest.mark.parametrize("item", ["None", "[]", "5", "'text'", "(1, 2)", "{'id': {1, 2}}", "{1: 'x', 'id': 2}", "{'id': 1, 'at': datetime.time(1, 2)}"])
def test_items_of_any_kind_are_rows(source: Source, item: str) -> None:
    source.declare(f"resources = [dlt.resource([{item}], name='orders', write_disposition='replace')]")
    assert source.load()["orders"].rows_loaded == (0 if item in ("None", "[]") else 1)


# --- what is refused


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ('write_disposition={"disposition": "merge", "strategy": "scd2"}', "merge strategy scd2"),
        ('table_name=lambda row: "orders", write_disposition=lambda row: "merge"', "decides its write_disposition by each row"),
        ('write_disposition="merge", merge_key="id"', "a merge_key and no primary_key"),
        ('write_disposition="merge", primary_key="id", columns={"gone": {"hard_delete": True, "data_type": "bool"}}', "marks deleted rows in gone"),
        ('write_disposition="merge", primary_key="id", columns={"at": {"dedup_sort": "asc"}}', "the lowest at"),
        ('write_disposition="merge"', "merges its rows and names no primary key"),
    ],
)
def test_what_a_load_cannot_keep_is_refused_with_the_reason(source: Source, hints: str, message: str) -> None:
    source.declare(f"@dlt.resource({hints})\ndef orders():\n    yield {{'id': 1}}\nresources = [orders]")
    with pytest.raises(FabricError, match=message):
        source.load()


def test_a_resource_or_a_setting_that_is_not_there_is_named(source: Source) -> None:
    (source.folder / "orders.json").write_text("[]")
    source.declare(order={})
    with pytest.raises(ConfigurationError, match="the source has no resource order; it has orders"):
        source.load()
    source.declare()
    source.tenant.source["secrets"] = {}
    with pytest.raises(ConfigurationError, match="the source lacks settings.*token"):
        source.load()


def test_settings_come_from_the_yaml_alone(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """dlt fills an argument that is left out from variables and files."""
    monkeypatch.setenv("SOURCES__ROWS_SOURCE__TOKEN", "another tenant's")
    monkeypatch.setenv("TOKEN", "another tenant's")
    (source.folder / "secrets.toml").write_text('token = "another"')
    source.declare(
        "resources = [dlt.resource([{'id': 1, 'variables': ' '.join(sorted(os.environ))}], name='orders', primary_key='id', write_disposition='merge')]"
    )
    source.load()
    assert "TOKEN" not in source.read("orders", "variables")[0][0]
    source.tenant.source["secrets"] = {}
    with pytest.raises(ConfigurationError, match="the source lacks settings"):
        source.load()


def test_two_tenants_at_once_do_not_see_each_others_keys(source: Source, settings: Settings) -> None:
    """A source that keeps its key in its module, as many do."""
    from concurrent.futures import ThreadPoolExecutor

    code = """
        import rows_source
        rows_source.KEY = token
        @dlt.resource(primary_key="id", write_disposition="merge")
        def orders():
            time.sleep(0.5)
            yield {"id": 1, "key": rows_source.KEY[::-1]}
        resources = [orders]
    """
    source.declare(code)
    other = Source(source.tenant.settings)
    other.tenant.name = "globex"
    other.declare(code)
    write_secret_file(other.tenant.settings, "other_token", "globex-token")
    other.tenant.source["secrets"] = {"token": {"file": "other_token"}}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda each: each.load(), (source, other)))
    assert source.read("orders", "key") == [("nekot-yr4n4c",)]
    assert other.read("orders", "key") == [("nekot-xebolg",)]


# --- installation


def test_a_source_says_its_settings_and_a_change_of_its_files_is_found(settings: Settings, installed_dlt: Mapping[str, Path], tmp_path: Path) -> None:
    own = replace(settings, **installed_dlt)
    environment = get_environment(own, "rows")
    assert environment.spec is not None
    assert environment.spec["required"] == ["folder", "token"]
    assert environment.spec["properties"]["token"]["secret"]
    streams = get_environment(own, "numbers").streams
    assert streams == ("numbers",)
    declared = Source(own)
    declared.declare(arguments={"foldr": "x"})
    mistakes = list(find_mistakes(environment.spec, declared.tenant.config.sources["web"]))  # type: ignore[arg-type]
    found = {path: " ".join(message for other, message in mistakes if other == path) for path, _ in mistakes}
    assert "has no setting 'foldr'; did you mean 'folder'" in found["arguments", "foldr"]
    assert "lacks 'folder'" in found["arguments",]
    declared.declare(connector="numbers", arguments={}, number={}, all={"resource": "numbers"})
    unknown = list(find_unknown_streams(streams, declared.tenant.config.sources["web"]))  # type: ignore[arg-type]
    assert unknown == [(("streams", "number"), "the connector numbers has no stream 'number'; did you mean 'numbers'? known: numbers")]
    # Beside a copy of the list whose files differ.
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "rows_source.py").write_text(f"{SOURCE}\n# changed")
    for name in ("connectors.yaml", "connectors.lock"):
        (tmp_path / name).write_text((installed_dlt["connectors"].parent / name).read_text())
    changed = replace(own, connectors=tmp_path / "connectors.yaml")
    assert list(find_findings(own, "rows", load_connectors(own)["rows"])) == []
    assert "the files of own are not those of connectors.lock" in next(find_findings(changed, "rows", load_connectors(changed)["rows"]))


@pytest.mark.parametrize(("entry", "message"), [("missing:rows", "missing:rows cannot be imported"), ("rows_source:nothing", "has no attribute 'nothing'")])
def test_a_function_that_is_not_there_is_told_at_the_installation(settings: Settings, tmp_path: Path, entry: str, message: str) -> None:
    own = build_site(settings, tmp_path, entry)
    with pytest.raises(ConfigurationError, match=message):
        install_from_index(own, "rows")


@pytest.mark.parametrize("version", ["1.30.0", "1.31.0"])
def test_our_program_runs_with_each_version_of_dlt_that_is_admitted(settings: Settings, tmp_path: Path, version: str) -> None:
    assert DLT_REQUIREMENT in (ROOT / "pyproject.toml").read_text()
    own = build_site(settings, tmp_path, "rows_source:rows", f'"dlt=={version}"')
    install_from_index(own, "rows")
    source = Source(own)
    source.declare(
        """
        @dlt.resource(primary_key="id", write_disposition="merge", table_name=lambda row: "orders" if row["id"] < 3 else "late")
        def orders(number=dlt.sources.incremental("id", initial_value=0)):
            yield [{"id": each, "at": datetime.datetime(2024, 1, 1)} for each in range(number.last_value + 1, 5)]
            dlt.current.source_state()["version"] = dlt.__version__
        resources = [orders]
        """
    )
    assert [source.load()["orders"].rows_loaded for _ in range(2)] == [4, 0]
    assert (source.read("orders", "id"), source.read("late", "id")) == ([(1,), (2,)], [(3,), (4,)])
    ((state,),) = source.tenant.ask("select state from acme_fabric.stream_state where stream = 'orders'")
    assert version in state


def build_site(settings: Settings, folder: Path, function: str, *requirements: str) -> Settings:
    """Write a list with the tests' own source, under a function's name."""
    (folder / "own").mkdir()
    (folder / "own" / "rows_source.py").write_text(SOURCE)
    listed = ", ".join(requirements)
    (folder / "connectors.yaml").write_text(f'connectors:\n  rows: {{type: dlt, source: "{function}", path: own, requirements: [{listed}]}}\n')
    return replace(settings, connectors=folder / "connectors.yaml", connectors_dir=folder / "connectors")
