"""What each source type promises with each destination kind: schema and keys, what is new alone, bad rows, failing streams, full refresh."""

import pytest

from fabric_assets.rows.reports import StreamFailure
from tests.contract.kinds import EVERY_PAIR, FOLLOWING
from tests.contract.source import STREAMS
from tests.contract.world import World
from tests.faults.oracle import NONE
from tests.support.dlt_reader import check_recorded
from tests.support.lengths import choose

WORDS = {"BIGINT": "bigint", "bigint": "bigint", "VARCHAR": "text", "character varying": "text"}


@pytest.mark.parametrize("world", EVERY_PAIR, indirect=True, ids="-".join)
def test_the_first_load_makes_the_table_and_the_second_reads_what_is_new(world: World) -> None:
    world.fill()
    first = world.load()
    check_recorded(world.destination.ask)
    for stream in STREAMS:
        assert world.count(stream) == NONE
        check_schema(world, stream)
        record = first[stream].record
        rows = len(world.source.rows[stream])
        assert (record.rows_read, record.rows_loaded, record.rows_rejected, record.rows_total) == (rows, rows, 0, rows)
        assert (record.write_disposition, first[stream].first_run) == (world.source.disposition, True)
        assert [column.name for column in first[stream].columns][:2] == ["id", "owner"]
    world.change()
    second = world.load()
    for stream, changed in (("orders", 6), ("stores", 1)):
        assert world.count(stream) == NONE
        assert changed <= second[stream].record.rows_read <= changed + world.source.boundary
        assert (second[stream].rows_total, second[stream].first_run) == (len(world.source.rows[stream]), False)
    versions = "select version, version_hash, inserted_at from acme_raw_shop._dlt_version order by 1"
    recorded = world.destination.ask(versions)
    third = world.load()
    check_recorded(world.destination.ask)
    assert world.destination.ask(versions) == recorded, "a load that changes no table writes no version"
    assert {stream: world.count(stream) for stream in STREAMS} == dict.fromkeys(STREAMS, NONE)
    assert all(report.record.rows_read <= min(world.source.boundary, 1) for report in third.values())


def check_schema(world: World, stream: str) -> None:
    columns = world.destination.ask(
        f"select column_name, data_type from information_schema.columns where table_schema = 'acme_raw_shop' and table_name = '{stream}'"
    )
    types = dict(columns)
    assert {name: WORDS[types[name]] for name in ("id", "owner", "note", "seq")} == {"id": "bigint", "owner": "text", "note": "text", "seq": "bigint"}
    assert not {name for name in types if not name.startswith("_")} - {"id", "owner", "note", "seq"}
    (found,) = world.destination.ask(f"select count(*), count(distinct id) from acme_raw_shop.{stream}")
    assert set(found) == {len(world.source.rows[stream])}
    # The state is the load's own: it was committed with it.
    ledger = "select status, rows_loaded, loads.rows_total, states.version from acme_fabric.loads as loads"
    ledger += f" join acme_fabric.stream_state as states using (source, stream) where source = 'shop' and stream = '{stream}'"
    assert world.destination.ask(ledger) == [("success", *found, 1)]


def test_a_stream_that_fails_spares_the_others_and_the_next_load_makes_it_good(world: World) -> None:
    world.fill()
    world.load()
    before = world.read("stores")
    world.change()
    world.source.break_stream()
    outcomes = world.try_load()
    assert world.count("orders") == NONE
    if world.source.quarantines:
        assert [file.status for file in outcomes["stores"].files] == ["loaded", "quarantined"]
        assert world.count("stores") == NONE
    else:
        assert isinstance(outcomes["stores"], StreamFailure)
        assert world.count("stores", before) == NONE
        (failed,) = world.destination.ask("select stream, error from acme_fabric.loads where status = 'failed'")
        assert failed == ("stores", str(outcomes["stores"].error))
        assert "tenant acme, source shop, stream stores" in str(outcomes["stores"].error)
    world.source.fix_stream()
    world.load()
    assert world.count("stores") == NONE


def test_a_bad_row_is_kept_with_its_reason_and_stops_no_other(world: World) -> None:
    world.fill()
    world.source.add_bad_row()
    report = world.load()["orders"]
    assert (report.rows_rejected, report.rows_loaded) == (1, len(world.source.rows["orders"]))
    assert report.record.rows_read == report.rows_rejected + report.rows_loaded
    assert any("stream orders: 1 row is rejected; see: fabric rejects list acme" in message for message in world.messages)
    world.check_rejects()
    assert world.count("orders") == NONE
    world.change()
    world.load()
    world.check_rejects()
    assert world.count("orders") == NONE


def test_a_full_refresh_shows_what_the_source_holds_now(world: World) -> None:
    world.fill()
    world.source.add_bad_row()
    world.load()
    world.change()
    world.source.remove("orders", 101)
    world.load()
    report = world.load(full_refresh=True)["orders"]
    check_recorded(world.destination.ask)
    assert world.count("orders") == NONE
    assert (report.first_run, report.rows_loaded) == (True, len(world.source.rows["orders"]))
    world.check_rejects()
    # The next load goes on from there.
    world.source.put("orders", [150], "last")
    assert world.load()["orders"].record.rows_read <= 1 + world.source.boundary
    assert world.count("orders") == NONE


@pytest.mark.parametrize("world", choose(FOLLOWING, 5), indirect=True, ids="-".join)
@pytest.mark.parametrize("mode", ["soft", "hard"])
def test_deletes_at_the_source_are_followed_once_and_only_where_the_keys_are_whole(world: World, mode: str) -> None:
    world.source.deletes = {"mode": mode, "max": "10%"}
    world.fill()
    world.source.add_bad_row()
    world.load()
    world.change()
    world.source.remove("orders", 101)
    assert world.load()["orders"].record.rows_deleted == 1
    if mode == "soft":
        assert [row[0] for row in world.destination.ask("select id from acme_raw_shop.orders where _fabric_deleted_at is not null")] == [101]
    else:
        assert world.count("orders") == NONE
    assert world.load()["orders"].record.rows_deleted == 0
    # A broken stream keeps its rows, and the other one is followed.
    world.source.remove("orders", 102)
    world.source.break_stream()
    before, outcomes = world.read("stores"), world.try_load()
    assert outcomes["orders"].record.rows_deleted == 1
    assert world.read("stores") == before
    world.source.fix_stream()
    # More than max are kept.
    for number in range(110, 130):
        world.source.remove("orders", number)
    kept = world.load()["orders"]
    assert (kept.record.rows_deleted, kept.record.deletes_kept is not None) == (0, True)
