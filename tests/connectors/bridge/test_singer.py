"""Singer taps: what becomes of each kind of message, of state, and of taps that do wrong."""

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.connectors.bridge.process import landlock
from fabric_assets.errors import ConfigurationError, FabricError, RetriableError, SourceError, SourceUnavailable
from fabric_assets.loading.rejects.replay import replay
from fabric_assets.settings import Settings
from tests.support.shop import Tenant, write_secret_file

CANONICAL = files("singer_sdk") / "testing" / "target_test_streams"
# Sends a file of messages instead of rows.
REPLAY = "sys.stdout.write(open(os.path.join(config['folder'], 'messages')).read()); sys.stdout.flush(); sys.exit()"


class Tap:
    """A tenant with the source `crm`, read by the tests' own tap."""

    def __init__(self, settings: Settings, warehouse: str | None) -> None:
        self.folder = settings.data_dir / "rows"
        self.folder.mkdir()
        self.tenant = Tenant(settings, {}, warehouse=warehouse, source_name="crm")
        self.declare(orders={})

    def declare(self, arguments: Mapping[str, Any] = {}, **streams: Mapping[str, Any]) -> None:
        write_secret_file(self.tenant.settings, "token", "c4n4ry-token")
        self.tenant.source = {
            "type": "singer",
            "connector": "rows",
            "folders": {"rows": "rows"},
            "arguments": {"folder": "{rows}", **arguments},
            "secrets": {"token": {"file": "token"}},
            "retries": {"max": 0},
            "streams": {name: dict(stream) for name, stream in streams.items()},
        }

    def write(self, stream: str, *rows: tuple[int, str, int]) -> None:
        (self.folder / f"{stream}.json").write_text(json.dumps([{"id": id_, "owner": "acme", "note": note, "seq": seq} for id_, note, seq in rows]))

    def send(self, *messages: Mapping[str, Any] | str, streams: tuple[str, ...] = ("orders",), **declared: Mapping[str, Any]) -> None:
        """Let the next load get these messages."""
        lines = [message if isinstance(message, str) else json.dumps(message) for message in messages]
        (self.folder / "messages").write_text("".join(f"{line}\n" for line in lines))
        self.declare({"code": REPLAY, "names": list(streams)}, **(declared or {name: {} for name in streams}))

    def read(self, stream: str, *columns: str) -> list[tuple[Any, ...]]:
        return self.tenant.read(stream, *columns)

    def read_types(self, stream: str) -> dict[str, str]:
        found = self.tenant.ask(
            f"select column_name, data_type from information_schema.columns where table_schema = 'acme_raw_crm' and table_name = '{stream}'"
        )
        return {name: kind.lower() for name, kind in found if not name.startswith("_dlt_")}

    def read_state(self, stream: str = "orders") -> dict[str, Any]:
        ((state,),) = self.tenant.ask(f"select state from acme_fabric.stream_state where stream = '{stream}'")
        return json.loads(state).get("singer", {})


@pytest.fixture
def tap(request: pytest.FixtureRequest, settings: Settings, installed_tap: Mapping[str, Path]) -> Tap:
    """On DuckDB, or on the destination that the test names."""
    url = request.getfixturevalue("postgres_database") if getattr(request, "param", "duckdb") == "postgres" else None
    return Tap(replace(settings, **installed_tap), url)


on_both = pytest.mark.parametrize("tap", ["duckdb", "postgres"], indirect=True)


def schema(stream: str = "orders", key: tuple[str, ...] = ("id",), **properties: Any) -> dict[str, Any]:
    return {"type": "SCHEMA", "stream": stream, "key_properties": list(key), "schema": {"properties": {"id": {"type": "integer"}, **properties}}}


def record(stream: str = "orders", version: int | None = None, **row: Any) -> dict[str, Any]:
    return {"type": "RECORD", "stream": stream, "record": row, **({} if version is None else {"version": version})}


def state(value: Any) -> dict[str, Any]:
    return {"type": "STATE", "value": value}


# --- replication


def test_a_stream_with_a_cursor_is_read_from_its_bookmark_and_one_without_as_a_whole(tap: Tap) -> None:
    tap.write("orders", (1, "a", 1), (2, "b", 2))
    tap.write("stores", (1, "x", 1), (2, "y", 2))
    tap.declare(orders={"cursor": {"field": "seq"}}, stores={})
    first = tap.tenant.load()
    assert {name: (report.record.write_disposition, report.record.rows_loaded) for name, report in first.items()} == {
        "orders": ("merge", 2),
        "stores": ("replace", 2),
    }
    assert tap.read_state() == {"tap_id": "orders", "key": ["id"], "disposition": "merge", "bookmark": {"seq": 2}}

    tap.write("orders", (1, "a", 1), (2, "later", 3), (3, "c", 4))
    tap.write("stores", (2, "z", 5))
    second = tap.tenant.load()
    assert {name: report.record.rows_loaded for name, report in second.items()} == {"orders": 2, "stores": 1}
    assert tap.read("orders", "id", "note") == [(1, "a"), (2, "later"), (3, "c")]
    assert tap.read("stores", "id", "note") == [(2, "z")]

    tap.tenant.load("orders", full_refresh=True)
    assert tap.read("orders", "id", "note") == [(1, "a"), (2, "later"), (3, "c")]


def test_fields_that_are_not_wanted_are_deselected_and_the_keys_stay(tap: Tap) -> None:
    tap.write("orders", (1, "a", 1))
    tap.declare(
        {"code": "[print(json.dumps(each), file=sys.stderr) for each in catalog['streams'][0]['metadata']]; sys.exit(3)"},
        orders={"columns": ["note"], "cursor": {"field": "seq"}},
    )
    with pytest.raises(SourceUnavailable) as caught:
        tap.tenant.load()
    said = caught.value.message
    for field, is_selected in {"id": "true", "note": "true", "seq": "true", "owner": "false"}.items():
        assert f'["properties", "{field}"], "metadata": {{"selected": {is_selected}}}' in said


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        ({"stream": "order"}, "rows has no stream 'order'; did you mean 'orders'"),
        ({"cursor": {"field": "sequence"}}, "the tap has no field 'sequence'"),
        ({"primary_key": "nr"}, "the tap has no field 'nr'"),
    ],
)
def test_what_the_catalog_does_not_have_is_named(tap: Tap, stream: dict[str, Any], message: str) -> None:
    tap.write("orders", (1, "a", 1))
    tap.declare(orders=stream)
    with pytest.raises(ConfigurationError, match=message):
        tap.tenant.load()


@on_both
def test_the_version_that_a_tap_activates_replaces_the_table(tap: Tap) -> None:
    declared = {"orders": {"replication": "incremental"}}
    tap.send(schema(), record(id=1, version=1), record(id=2, version=1), {"type": "ACTIVATE_VERSION", "stream": "orders", "version": 1}, **declared)
    tap.tenant.load()
    tap.send(schema(), record(id=3, version=1), {"type": "ACTIVATE_VERSION", "stream": "orders", "version": 1}, **declared)
    tap.tenant.load()
    assert tap.read("orders", "id") == [(1,), (2,), (3,)]
    tap.send(schema(), record(id=9, version=2), {"type": "ACTIVATE_VERSION", "stream": "orders", "version": 2}, **declared)
    assert tap.tenant.load()["orders"].record.write_disposition == "replace"
    assert tap.read("orders", "id") == [(9,)]


def test_an_incremental_stream_without_a_key_is_refused_with_three_ways_out(tap: Tap) -> None:
    tap.send(schema(key=()), record(id=1), orders={"replication": "incremental"})
    with pytest.raises(SourceError, match="reads the stream incrementally and names no key") as caught:
        tap.tenant.load()
    assert "primary_key" in caught.value.remedy
    tap.send(schema(key=()), record(id=1), orders={"replication": "incremental", "write_disposition": "append"})
    assert tap.tenant.load()["orders"].record.rows_loaded == 1


# --- state


@on_both
def test_the_state_of_a_tap_without_bookmarks_belongs_to_all_its_streams(tap: Tap) -> None:
    both, declared = ("orders", "stores"), {"orders": {"replication": "incremental"}, "stores": {"replication": "incremental"}}
    messages = [schema(), schema("stores"), record(id=1), record("stores", id=1), state({"token": "t1"})]
    tap.send(*messages, streams=both, **declared)
    tap.tenant.load()
    shared = {"state": {"token": "t1"}}
    assert {name: tap.read_state(name) for name in both} == {name: {"tap_id": name, "key": ["id"], "disposition": "merge", **shared} for name in both}
    with pytest.raises(ConfigurationError, match="rows keeps one state for orders, stores, so they are loaded together; stores is not selected") as caught:
        tap.tenant.load("orders")
    assert "raw/crm as a whole" in caught.value.remedy
    with pytest.raises(ConfigurationError, match="keeps one state"):
        tap.tenant.load("orders", full_refresh=True)
    # A row that fails one stream fails both: neither has the new state.
    tap.send(*messages[:-1], record(id=2), record("stores", id=None, note="x"), state({"token": "t2"}), streams=both, **declared)
    tap.tenant.source["streams"]["stores"]["rejects"] = {"max": 0}
    with pytest.raises(FabricError):
        tap.tenant.load()
    assert tap.read("orders", "id") == [(1,)]
    assert tap.read_state("orders")["state"] == {"token": "t1"}


def test_a_stream_that_one_state_does_not_cover_is_refused_and_one_that_left_is_not_missed(tap: Tap) -> None:
    declared = {name: {"replication": "incremental"} for name in ("orders", "stores", "visits")}
    messages = {name: [schema(name), record(name, id=1)] for name in declared}
    both = ("orders", "stores")
    tap.send(*messages["orders"], *messages["stores"], state({"token": "t1"}), streams=both, **{name: declared[name] for name in both})
    tap.tenant.load()
    everything = [message for each in messages.values() for message in each]
    tap.send(*everything, state({"token": "t2"}), streams=tuple(declared), **declared)
    with pytest.raises(ConfigurationError, match="keeps one state for orders, stores, which says nothing of visits: its earlier rows would be left out"):
        tap.tenant.load()
    tap.tenant.load(full_refresh=True)
    tap.send(*messages["orders"], state({"token": "t3"}), orders=declared["orders"])
    tap.tenant.load()
    assert tap.read_state()["state"] == {"token": "t3"}


def test_a_state_that_the_tap_does_not_send_again_stays(tap: Tap) -> None:
    both, declared = ("orders", "stores"), {"orders": {"replication": "incremental"}, "stores": {"replication": "incremental"}}
    tap.send(schema(), schema("stores"), state({"bookmarks": {"orders": {"at": 1}, "stores": {"at": 1}}}), streams=both, **declared)
    tap.tenant.load()
    tap.send(schema(), schema("stores"), state({"bookmarks": {"stores": {"at": 2}}}), streams=both, **declared)
    tap.tenant.load()
    assert [tap.read_state(name)["bookmark"] for name in both] == [{"at": 1}, {"at": 2}]
    tap.send(schema(), schema("stores"), streams=both, **declared)
    tap.tenant.load()
    assert [tap.read_state(name)["bookmark"] for name in both] == [{"at": 1}, {"at": 2}]


def test_the_tap_gets_the_state_that_was_committed(tap: Tap) -> None:
    tap.write("orders", (1, "a", 5))
    tap.declare(orders={"cursor": {"field": "seq"}})
    tap.tenant.load()
    tap.declare({"code": "sys.exit(json.dumps(state))"}, orders={"cursor": {"field": "seq"}})
    with pytest.raises(SourceUnavailable) as caught:
        tap.tenant.load()
    assert '{"bookmarks": {"orders": {"seq": 5}}}' in caught.value.message


# --- values


@on_both
def test_types_of_the_schema_are_kept_and_no_digit_is_lost(tap: Tap) -> None:
    properties = {
        "at": {"type": ["null", "string"], "format": "date-time"},
        "day": {"type": "string", "format": "date"},
        "price": {"type": "number", "multipleOf": 0.01},
        "rate": {"type": "number"},
        "code": {"type": "string"},
        "big": {"type": "integer"},
        "either": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "flag": {"type": "boolean"},
    }
    row = {"at": "2024-01-02T03:04:05.678901+02:00", "day": "2024-01-02", "price": 12.1, "rate": 3, "code": "2024-01-02T03:04", "flag": True}
    text = json.dumps(record(id=1, **row, big=2**62, either="2024-01-01T00:00:00Z")).replace("12.1,", "12345678901234567890.12,")
    tap.send(schema(**properties), text)
    tap.tenant.load()
    assert tap.read("orders", *properties) == [
        (
            datetime(2024, 1, 2, 1, 4, 5, 678901, UTC),
            date(2024, 1, 2),
            Decimal("12345678901234567890.12"),
            3.0,
            "2024-01-02T03:04",
            2**62,
            datetime(2024, 1, 1, tzinfo=UTC),
            True,
        )
    ]
    tap.send(schema(**properties), record(id=2, **{**row, "day": "soon", "price": 1.25}))
    tap.tenant.load()
    assert tap.read("orders", "id", "day", "day__v_text", "price") == [(2, None, "soon", Decimal("1.25"))]


def test_a_stream_without_rows_gets_its_columns(tap: Tap) -> None:
    tap.send(schema(at={"type": "string", "format": "date-time"}))
    assert tap.tenant.load()["orders"].rows_total == 0
    assert tap.read_types("orders").keys() == {"id", "at"}


def test_rows_of_batch_files_are_loaded_and_files_elsewhere_are_not(tap: Tap) -> None:
    code = """
import gzip
home = os.environ["HOME"]
with gzip.open(home + "/rows.gz", "wb") as file:
    file.write(b'{"id": 1}\\n{"id": 2}\\n')
os.symlink(config["folder"] + "/orders.json", home + "/link")
send("SCHEMA", stream="orders", schema={"properties": {"id": {"type": "integer"}}}, key_properties=["id"])
send("BATCH", stream="orders", encoding={"format": "jsonl", "compression": COMPRESSION}, manifest=["file://" + PATH])
sys.stdout.flush()
sys.exit()
"""
    tap.write("orders", (7, "not mine", 1))
    tap.declare({"code": code.replace("COMPRESSION", "'gzip'").replace("PATH", "home + '/rows.gz'")}, orders={})
    tap.tenant.load()
    assert tap.read("orders", "id") == [(1,), (2,)]
    for path in ("home + '/link'", "config['folder'] + '/orders.json'", "'/etc/passwd'"):
        tap.declare({"code": code.replace("COMPRESSION", "None").replace("PATH", path)}, orders={})
        with pytest.raises(SourceError, match=r"line 2 of the output of rows names the file \w+(\.json)?"):
            tap.tenant.load()
    assert tap.read("orders", "id") == [(1,), (2,)]


# --- the messages that singer-sdk tests its targets with

EXPECTED: dict[str, dict[str, int]] = {
    "array_data": {"test_array_data": 4},
    "camelcase": {"TestCamelcase": 2},
    "camelcase_complex_schema": {"ForecastingTypeToCategory": 0},
    "duplicate_records": {"test_duplicate_records": 2},
    "encoded_string_data": {"test_strings": 11, "test_strings_in_objects": 11, "test_strings_in_arrays": 6},
    "multiple_state_messages": {"test_multiple_state_messages_a": 6, "test_multiple_state_messages_b": 6},
    "no_primary_keys": {"test_no_pk": 3},
    "no_primary_keys_append": {"test_no_pk": 5},
    "optional_attributes": {"test_optional_attributes": 4},
    "pk_updates": {"example_stream": 2},
    "record_missing_fields": {"record_missing_fields": 2},
    "record_missing_required_property": {"test_record_missing_required_property": 1},
    "schema_no_properties": {"test_object_schema_with_properties": 2, "test_object_schema_no_properties": 2},
    "schema_updates": {"test_schema_updates": 6},
    "special_chars_in_attributes": {"test:SpecialChars!in?attributes": 1},
    "user_location_data": {"test_users": 5, "test_locations": 3, "test_user_in_location": 3},
}
REFUSED = {
    "invalid_schema": "line 1 of the output of rows is a SCHEMA of the stream test_invalid_schema without properties",
    "record_before_schema": "line 1 of the output of rows is a RECORD of the stream test_record_before_schema before its SCHEMA",
}


def list_streams(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(message["stream"] for message in map(json.loads, text.splitlines()) if "stream" in message))


def send_file(tap: Tap, name: str) -> dict[str, str]:
    """Let the next load get a file of messages; return the name of each stream in the YAML."""
    text = (CANONICAL / f"{name}.singer").read_text()
    names = {stream: f"s{number}" for number, stream in enumerate(list_streams(text))}
    tap.send(*text.splitlines(), streams=tuple(names), **{own: {"stream": stream} for stream, own in names.items()})
    return names


@pytest.mark.parametrize("name", EXPECTED)
def test_the_messages_of_singer_sdk_make_the_tables_that_it_expects(tap: Tap, name: str) -> None:
    names = send_file(tap, name)
    loaded = tap.tenant.load()
    assert {stream: loaded[own].rows_total for stream, own in names.items()} == EXPECTED[name]


@pytest.mark.parametrize("name", REFUSED)
def test_messages_of_singer_sdk_that_are_wrong_are_refused_by_their_line(tap: Tap, name: str) -> None:
    send_file(tap, name)
    with pytest.raises(SourceError, match=REFUSED[name]):
        tap.tenant.load()


def test_a_second_load_of_singer_sdks_users_changes_those_that_changed(tap: Tap) -> None:
    send_file(tap, "user_location_data")
    for stream in tap.tenant.source["streams"].values():
        stream["replication"] = "incremental"
    tap.tenant.load()
    declared = tap.tenant.source["streams"]
    send_file(tap, "user_location_upsert_data")
    tap.tenant.source["streams"] = declared
    tap.tenant.load()
    expected = [(1, "Johny"), (2, "George"), (3, "Jacob"), (4, "Josh"), (5, "Jim"), (8, "Thomas"), (12, "Paul"), (13, "Mary")]
    assert tap.read("s0", "id", "name") == expected


def test_records_of_which_none_has_the_key_are_refused(tap: Tap) -> None:
    send_file(tap, "record_missing_key_property")
    with pytest.raises(SourceError, match="the source has no primary_key column 'id'; known: metric"):
        tap.tenant.load()


def test_a_rejected_row_is_replayed_by_the_key_that_the_tap_named(tap: Tap) -> None:
    declared = {"orders": {"replication": "incremental", "schema_contract": {"data_type": "discard"}, "rejects": {"max": 5}}}
    number = {"type": "integer"}
    tap.send(schema(total=number), record(id=1, total=1), record(id=2, total="two"), record(id=3, total="three"), **declared)
    tap.tenant.load()
    tap.send(schema(total=number), record(id=2, total=22), **declared)
    tap.tenant.load()
    tap.declare(orders={"replication": "incremental"})
    (done,) = replay(tap.tenant.config, tap.tenant.settings)
    assert (done.replayed, done.superseded, done.error) == (2, 1, "")
    assert tap.read("orders", "id", "total", "total__v_text") == [(1, 1, None), (2, 22, None), (3, None, "three")]


# --- taps that do wrong

SENT = "send('SCHEMA', stream='orders', schema={'properties': {'id': {}}}, key_properties=['id']); send('RECORD', stream='orders', record={'id': 9}); "
WRONG = {
    "hangs": (SENT + "sys.stdout.flush(); time.sleep(60)", r"it used more time than it may", {"timeout": "2s"}),
    "dies in the middle of a line": (SENT + 'sys.stdout.write(\'{"type": "REC\'); sys.stdout.flush(); os.kill(os.getpid(), 9)', "was ended by signal 9", {}),
    "ends in the middle of a line": (SENT + 'sys.stdout.write(\'{"type": "REC\'); sys.exit()', "line 3 of the output of rows is not a Singer message", {}),
    "sends a line of 51 MB": (SENT + "print('a' * 51_000_000)", "wrote a line of over 47 MB", {}),
    "dies after its state": (SENT + "send('STATE', value={'bookmarks': {'orders': {'seq': 99}}}); sys.exit('no more')", "ended with exit code 1", {}),
    "logs to its output": (SENT + "print('INFO token=c4n4ry-token')", r"line 3 of the output of rows is not a Singer message: 'INFO token=\*\*\*'", {}),
    "shows its secret": ("sys.exit('401 for ' + config['token'])", r"401 for \*\*\*", {}),
    "nests without end": (
        SENT + 'print(\'{"type": "RECORD", "stream": "orders", "record": {"id": \' + \'[\' * 100_000 + \'}}\')',
        "line 3 of the output of rows is not a Singer message",
        {},
    ),
    "is wrong among many rows": (
        SENT.replace("{'id': {}}", "{'id': {'type': 'integer'}}")
        + "[send('RECORD', stream='orders', record={'id': number} if number != 76 else 5) for number in range(100)]; sys.exit()",
        "line 79 of the output of rows is a RECORD of the stream orders without an object",
        {},
    ),
    "sends no object": (SENT + "print('[1]')", "line 3 of the output of rows is not a Singer message", {}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_of_a_tap_that_does_wrong_nothing_is_kept_and_the_next_run_is_whole(tap: Tap, wrong: str) -> None:
    code, message, options = WRONG[wrong]
    tap.write("orders", (1, "a", 1), (2, "b", 2))
    declared = {"orders": {"cursor": {"field": "seq"}}}
    tap.declare({"code": code}, **declared)
    tap.tenant.source |= options
    with pytest.raises(FabricError, match=message) as caught:
        tap.tenant.load()
    assert caught.value.remedy
    assert "c4n4ry" not in f"{caught.value}{tap.tenant.messages}"
    assert tap.tenant.ask("select status, rows_loaded from acme_fabric.loads") == [("failed", 0)]
    assert list(tap.tenant.settings.data_dir.glob("loads/acme/crm*/**/*")) == []
    tap.declare(**declared)
    assert tap.tenant.load()["orders"].record.rows_loaded == 2
    assert tap.read("orders", "id") == [(1,), (2,)]


def test_rows_of_streams_that_are_not_declared_are_told_and_not_loaded(tap: Tap) -> None:
    tap.send(schema(), schema("other"), record(id=1), record("other", id=1), record("other", id=2))
    tap.tenant.load()
    assert "rows also sent 2 rows of its stream other, which is not declared; they are not loaded" in tap.tenant.messages[-1]


def test_where_a_tap_cannot_be_confined_it_is_not_started(tap: Tap, monkeypatch: pytest.MonkeyPatch) -> None:
    tap.write("orders", (1, "a", 1))
    monkeypatch.setattr(landlock, "get_version", lambda: 3)
    with pytest.raises(ConfigurationError, match=r"rows was not started: it cannot be confined: the kernel has Landlock version 3.*trusted: true"):
        tap.tenant.load()


def test_more_rows_than_may_wait_are_refused(tap: Tap, tmp_path: Path) -> None:
    connectors = tmp_path / "connectors.yaml"
    connectors.write_text(tap.tenant.settings.connectors.read_text().replace("executable: tap-rows", "executable: tap-rows, limits: {spill: 100KB}"))
    tap.tenant.settings = replace(tap.tenant.settings, connectors=connectors)
    tap.write("orders", *((number, "x" * 1000, number) for number in range(200)))
    with pytest.raises(SourceError, match="sent more than 0 MB that nothing could be committed of") as caught:
        tap.tenant.load()
    assert "limits.spill" in caught.value.remedy


def test_two_loads_of_one_tap_at_once_end_with_each_row_once(tap: Tap) -> None:
    tap.write("orders", *((number, "x", number) for number in range(50)))
    tap.declare({"code": "time.sleep(0.5)"}, orders={"cursor": {"field": "seq"}})
    with ThreadPoolExecutor(2) as pool:
        loads = [pool.submit(tap.tenant.load) for _ in range(2)]
    failed = [error for load in loads if (error := load.exception())]
    assert all(isinstance(error, RetriableError) and "another run has loaded the stream" in error.message for error in failed)
    assert len(failed) < 2
    assert [number for (number,) in tap.read("orders", "id")] == list(range(50))
