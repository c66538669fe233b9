"""A cursor asks for what is new, and neither loses nor doubles a row, whatever the API's clock and spelling."""

from datetime import datetime
from typing import Any

import pytest
from werkzeug import Request

from fabric_assets.errors import ConfigurationError, DataError, SourceError
from tests.connectors.rest_api.rest import Api, Reading, Warehouse, answer_json, read
from tests.support.memory import Memory

Row = dict[str, Any]


class Feed:
    """An API that gives the rows at or after `since`, by the moment, two a page."""

    def __init__(self, api: Api, *rows: Row, path: str = "/v1/events") -> None:
        self.rows, self._api, self._path = list(rows), api, path
        api.serve(path, self._answer)

    def _answer(self, request: Request) -> Any:
        since = request.args.get("since")
        found = [row for row in self.rows if since is None or row["at"] is None or rank(row["at"]) >= rank(since)]
        start = int(request.args.get("offset", 0))
        return {"data": found[start : start + 2], "total": len(found)}

    @property
    def asked(self) -> list[str | None]:
        """The `since` of each load."""
        return [query.get("since") for query in self._api.get_queries(self._path) if query["offset"] == "0"]


def rank(value: Any) -> float:
    try:
        return float(value)
    except ValueError:
        return datetime.fromisoformat(value).replace(tzinfo=None).timestamp()


def build_stream(disposition: str, **cursor: Any) -> Row:
    return {
        "path": "events",
        "data": "data",
        "paginator": {"type": "offset", "limit": 2, "total": "total"},
        "write_disposition": disposition,
        "cursor": {"field": "at", "param": "since", **cursor},
        **({"primary_key": "id"} if disposition == "merge" else {}),
    }


def load(warehouse: Warehouse, disposition: str, *, full_refresh: bool = False, **cursor: Any) -> int:
    return warehouse.load({"events": build_stream(disposition, **cursor)}, full_refresh=full_refresh)["events"].rows_loaded


def count(warehouse: Warehouse) -> tuple[int, int]:
    """Rows, and different rows."""
    return warehouse.read("select count(*), count(distinct id) from events")[0]  # type: ignore[return-value]


T1, T2, T3 = "2024-03-01T10:00:00Z", "2024-03-01T10:00:01Z", "2024-03-02T00:00:00Z"


@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_the_second_load_asks_from_the_last_value_and_doubles_nothing(api: Api, warehouse: Warehouse, disposition: str) -> None:
    feed = Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T2}, {"id": 3, "at": T2})
    assert load(warehouse, disposition) == 3
    feed.rows += [{"id": 4, "at": T3}, {"id": 5, "at": T3}]
    load(warehouse, disposition)
    assert feed.asked == [None, T2]
    assert count(warehouse) == (5, 5)


@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_rows_that_arrive_later_with_the_last_value_are_loaded_too(api: Api, warehouse: Warehouse, disposition: str) -> None:
    feed = Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T2})
    load(warehouse, disposition)
    feed.rows += [{"id": 3, "at": T2}]
    load(warehouse, disposition)
    feed.rows += [{"id": 4, "at": T2}]
    load(warehouse, disposition)
    assert count(warehouse) == (4, 4)


@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_a_load_without_news_changes_nothing(api: Api, warehouse: Warehouse, disposition: str) -> None:
    feed = Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T2})
    for _ in range(3):
        load(warehouse, disposition)
    assert feed.asked == [None, T2, T2]
    assert count(warehouse) == (2, 2)


def test_append_without_news_loads_no_row(api: Api, warehouse: Warehouse) -> None:
    Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T2})
    assert [load(warehouse, "append") for _ in range(2)] == [2, 0]


def test_equal_rows_of_a_table_without_a_key_are_all_kept(api: Api, warehouse: Warehouse) -> None:
    feed = Feed(api, {"id": 1, "at": T1}, {"id": 1, "at": T1})
    assert load(warehouse, "append") == 2
    feed.rows += [{"id": 1, "at": T1}]
    assert load(warehouse, "append") == 1
    assert load(warehouse, "append") == 0
    assert count(warehouse) == (3, 1)


def test_an_api_that_gives_more_than_was_asked_for_doubles_nothing(api: Api, warehouse: Warehouse) -> None:
    rows = [{"id": 1, "at": T1}, {"id": 2, "at": T2}]
    api.serve("/v1/events", lambda _: {"data": rows, "total": len(rows)})
    stream = {"events": {**build_stream("append"), "paginator": {"type": "single_page"}}}
    warehouse.load(stream)
    rows.append({"id": 3, "at": T3})
    assert warehouse.load(stream)["events"].rows_loaded == 1
    assert count(warehouse) == (3, 3)
    assert [message.partition(". An append")[0] for message in warehouse.messages if "left out" in message] == [
        "tenant acme, source crm, stream events: rows left out because they come before the last load's highest 'at': 1"
    ]


@pytest.mark.parametrize("disposition", ["merge", "append"])
@pytest.mark.parametrize(
    "later",
    ["2024-03-01T10:00:00.500Z", "2024-03-01T10:00:00.5", "2024-03-01T10:00:00.500001+00:00"],
    ids=["fraction", "naive", "offset"],
)
def test_times_are_compared_as_moments_not_as_text(api: Api, warehouse: Warehouse, disposition: str, later: str) -> None:
    """As text the fraction sorts before the whole second, and the row would be taken for an old one."""
    feed = Feed(api, {"id": 1, "at": T1})
    load(warehouse, disposition)
    feed.rows += [{"id": 2, "at": later}]
    load(warehouse, disposition)
    feed.rows += [{"id": 3, "at": T2}]
    load(warehouse, disposition)
    assert feed.asked == [None, T1, later]
    assert count(warehouse) == (3, 3)


def test_times_in_different_zones_are_compared_by_their_moment(api: Api, warehouse: Warehouse) -> None:
    feed = Feed(api, {"id": 1, "at": "2024-03-01T12:00:00+02:00"}, {"id": 2, "at": "2024-03-01T11:00:00Z"})
    load(warehouse, "merge")
    load(warehouse, "merge")
    assert feed.asked == [None, "2024-03-01T11:00:00Z"]


@pytest.mark.parametrize(
    ("last", "lag", "asked"),
    [
        ("2024-03-01T10:00:00Z", "5m", "2024-03-01T09:55:00Z"),
        ("2024-03-01T10:00:00+02:00", "1h", "2024-03-01T09:00:00+02:00"),
        ("2024-03-01 10:00:00", "1d", "2024-02-29 10:00:00"),
        ("2024-03-01T10:00:00.250Z", "1s", "2024-03-01T09:59:59.250000Z"),
        ("2024-03-01", "1d", "2024-02-29"),
        ("2024-03-01", "5m", "2024-02-29"),
        (1000, 10, "990"),
        ("1000", 10, "990"),
        ("1000.50", 10, "990.50"),
        (1000.5, 10, "990.5"),
        ("-3", 10, "-13"),
    ],
)
def test_the_lag_goes_back_in_the_apis_own_spelling(api: Api, warehouse: Warehouse, last: Any, lag: Any, asked: str) -> None:
    feed = Feed(api, {"id": 1, "at": last})
    load(warehouse, "merge", lag=lag)
    load(warehouse, "merge", lag=lag)
    assert feed.asked == [None, asked]


def test_a_row_that_arrives_late_within_the_lag_is_loaded(api: Api, warehouse: Warehouse) -> None:
    feed = Feed(api, {"id": 1, "at": T2})
    load(warehouse, "merge", lag="5m")
    feed.rows += [{"id": 2, "at": T1}]
    load(warehouse, "merge", lag="5m")
    assert count(warehouse) == (2, 2)


@pytest.mark.parametrize(("value", "lag", "reason"), [(5, "5m", "must be a number"), (T1, 5, "must be a duration"), ("2024-W01-x", "5m", "must be left out")])
def test_a_lag_of_the_wrong_kind_is_a_mistake_of_the_yaml(api: Api, warehouse: Warehouse, value: Any, lag: Any, reason: str) -> None:
    api.serve("/v1/events", {"data": [{"id": 1, "at": value}], "total": 1})
    load(warehouse, "merge", lag=lag)
    with pytest.raises(ConfigurationError, match=reason):
        load(warehouse, "merge", lag=lag)


def test_the_first_load_begins_at_the_initial_value_and_no_lag_goes_before_it(api: Api, warehouse: Warehouse) -> None:
    feed = Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T2})
    assert load(warehouse, "merge", initial=T2, lag="7d") == 1
    load(warehouse, "merge", initial=T2, lag="7d")
    assert feed.asked == [T2, T2]
    assert count(warehouse) == (1, 1)


@pytest.mark.parametrize("disposition", ["merge", "append"])
def test_a_full_refresh_begins_anew(api: Api, warehouse: Warehouse, disposition: str) -> None:
    feed = Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T2})
    load(warehouse, disposition)
    feed.rows[0] = {"id": 7, "at": T1}
    assert load(warehouse, disposition, full_refresh=True) == 2
    assert feed.asked == [None, None]
    assert warehouse.read("select id from events order by id") == [(2,), (7,)]
    assert load(warehouse, disposition) == (1 if disposition == "merge" else 0)


def test_numbers_count_as_numbers(api: Api, warehouse: Warehouse) -> None:
    feed = Feed(api, {"id": 1, "at": 9}, {"id": 2, "at": 10})
    load(warehouse, "append")
    feed.rows += [{"id": 3, "at": 100}]
    load(warehouse, "append")
    load(warehouse, "append")
    assert feed.asked == [None, "10", "100"]
    assert count(warehouse) == (3, 3)


@pytest.mark.parametrize(
    ("first", "second", "asked"),
    [
        (["8.5", "9.5"], ["10.5", "9.75"], ["9.5", "10.5"]),
        (["8.5", 9.5], ["10.25", 10.5, 9.75], ["9.5", "10.5"]),
        (["-10", "-9.5"], ["-9", "-8.5", "3"], ["-9.5", "3"]),
        (["0.1", 0.1], ["0.10", "0.10000000000000000001"], ["0.1", "0.10000000000000000001"]),
    ],
)
def test_numbers_in_texts_count_as_numbers(api: Api, warehouse: Warehouse, first: list[Any], second: list[Any], asked: list[str]) -> None:
    feed = Feed(api, *({"id": number, "at": value} for number, value in enumerate(first)))
    load(warehouse, "append")
    feed.rows += [{"id": number, "at": value} for number, value in enumerate(second, start=len(first))]
    load(warehouse, "append")
    assert load(warehouse, "append") == 0
    assert feed.asked == [None, *asked]
    assert count(warehouse) == (len(feed.rows), len(feed.rows))


@pytest.mark.parametrize("value", ["evt_9", "0x1F", "1.2.3", "01/02/2024", "Fri, 01 Mar 2024 10:00:00 GMT"])
def test_texts_whose_order_only_the_api_knows_cannot_be_appended(api: Api, warehouse: Warehouse, value: str) -> None:
    api.serve("/v1/events", {"data": [{"id": 1, "at": value}], "total": 1})
    with pytest.raises(DataError, match="not a number or time.*cannot tell which rows are new\n  remedy: use merge with a primary_key"):
        load(warehouse, "append")


def test_texts_whose_order_only_the_api_knows_are_merged_without_a_loss(api: Api, warehouse: Warehouse) -> None:
    rows = [{"id": 1, "at": "evt_8"}, {"id": 2, "at": "evt_9"}]
    api.serve("/v1/events", lambda request: {"data": rows, "total": len(rows)})
    stream = {"events": {**build_stream("merge"), "paginator": {"type": "single_page"}}}
    for number in range(10, 13):
        warehouse.load(stream)
        rows.append({"id": number, "at": f"evt_{number}"})
    warehouse.load(stream)
    assert count(warehouse) == (5, 5)


def test_a_dotted_cursor_field_is_found(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/events", lambda request: [{"id": 1, "meta": {"at": T1}}])
    stream = {"events": {"path": "events", "primary_key": "id", "cursor": {"field": "meta.at", "param": "since"}}}
    warehouse.load(stream)
    warehouse.load(stream)
    assert api.get_queries("/v1/events") == [{}, {"since": T1}]


def test_a_cursor_field_that_no_row_has_is_reported(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/events", {"data": [{"id": 1, "updated_at": T1}], "total": 1})
    with pytest.raises(SourceError, match=r"stream events: the source has no cursor field 'at'.*id, updated_at"):
        load(warehouse, "merge")


def test_a_row_without_a_cursor_value_is_merged_and_moves_nothing(api: Api, warehouse: Warehouse) -> None:
    feed = Feed(api, {"id": 1, "at": None}, {"id": 2, "at": T1})
    load(warehouse, "merge")
    load(warehouse, "merge")
    assert feed.asked == [None, T1]
    assert count(warehouse) == (2, 2)


def test_a_row_without_a_cursor_value_cannot_be_appended(api: Api, warehouse: Warehouse) -> None:
    Feed(api, {"id": 1, "at": None}, {"id": 2, "at": T1})
    with pytest.raises(DataError, match="no value in the cursor field 'at', so each load would append it again"):
        load(warehouse, "append")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_cursor_value_that_is_not_a_number_is_reported(api: Api, warehouse: Warehouse, value: float) -> None:
    api.serve("/v1/events", {"data": [{"id": 1, "at": 1}, {"id": 2, "at": value}], "total": 2})
    with pytest.raises(DataError, match=rf"cursor field 'at' holds {value}, which is not a number"):
        load(warehouse, "append")


@pytest.mark.parametrize("value", [True, ["x"], {"a": 1}])
def test_a_cursor_value_that_cannot_be_compared_is_reported(api: Api, warehouse: Warehouse, value: Any) -> None:
    api.serve("/v1/events", {"data": [{"id": 1, "at": value}], "total": 1})
    with pytest.raises(DataError, match=r"cursor field 'at' holds (bool|list|dict) values"):
        load(warehouse, "merge")


def test_cursor_values_of_two_kinds_are_reported(api: Api, warehouse: Warehouse) -> None:
    api.serve("/v1/events", {"data": [{"id": 1, "at": 5}, {"id": 2, "at": T1}], "total": 2})
    with pytest.raises(DataError, match="cursor field 'at' holds values of several kinds: number, time"):
        load(warehouse, "merge")


def test_the_newest_of_two_rows_with_one_key_wins(api: Api, warehouse: Warehouse) -> None:
    Feed(api, {"id": 1, "at": T2, "name": "new"}, {"id": 1, "at": T1, "name": "old"})
    load(warehouse, "merge")
    assert warehouse.read("select name from events") == [("new",)]


def test_a_load_that_fails_does_not_move_the_cursor(api: Api, warehouse: Warehouse) -> None:
    broken = [True]

    def answer(request: Request) -> Any:
        if request.args["offset"] == "2" and broken:
            return answer_json({}, 404)
        rows = [{"id": 1, "at": T1}, {"id": 2, "at": T2}, {"id": 3, "at": T3}]
        start = int(request.args["offset"])
        return {"data": rows[start : start + 2], "total": 3}

    api.serve("/v1/events", answer)
    with pytest.raises(SourceError):
        load(warehouse, "append")
    broken.clear()
    assert load(warehouse, "append") == 3
    assert [query.get("since") for query in api.get_queries("/v1/events")] == [None] * 4


# --- an API that was set back, a state that was lost


def read_events(feed: Feed, memory: Memory, disposition: str, *, api: Api, **cursor: Any) -> Reading:
    keyed = {**build_stream(disposition, **cursor), "primary_key": "id"}
    return read({"events": keyed}, memories={"events": memory}, base_url=api.url)


def test_an_api_that_went_back_is_reported_and_read_from_its_beginning(api: Api) -> None:
    feed, memory = Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T3}), Memory()
    read_events(feed, memory, "merge", api=api, lag="7d")
    feed.rows = [{"id": 1, "at": "2023-01-01T00:00:00Z"}, {"id": 2, "at": T2}]
    reading = read_events(feed, memory, "merge", api=api, lag="7d")
    assert f"the cursor field 'at' went back to {T2}: the API's data look restored; all of its rows are read again" in reading.messages[0]
    assert feed.rows[0] in reading.get_rows("events")
    assert memory.state == {"field": "at", "position": T2}
    assert (memory.window.start, memory.window.end) == (None, T2)


def test_an_append_from_an_api_that_went_back_is_refused(api: Api) -> None:
    memory = Memory()
    answers = [[{"id": 1, "at": T3}], [{"id": 1, "at": T1}]]
    api.serve("/v1/events", lambda _: {"data": answers.pop(0), "total": 1})
    feed_stream = {**build_stream("append"), "primary_key": "id"}
    read({"events": feed_stream}, memories={"events": memory}, base_url=api.url)
    failures = read({"events": feed_stream}, memories={"events": memory}, base_url=api.url).failures
    assert "an append cannot tell which rows it has loaded" in failures["events"].message


def test_an_append_whose_state_is_lost_uses_the_warehouses_rows(api: Api) -> None:
    feed = Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": T2}, {"id": 3, "at": T2}, {"id": 4, "at": T3})
    known = Memory({"id": 1, "at": datetime.fromisoformat(T1)}, {"id": 2, "at": datetime.fromisoformat(T2)})
    assert read_events(feed, known, "append", api=api).get_rows("events") == feed.rows[2:]


def test_an_append_without_a_key_whose_state_is_lost_is_refused(api: Api) -> None:
    feed = Feed(api, {"id": 1, "at": T1})
    known = Memory({"id": 1, "at": datetime.fromisoformat(T1), "_dlt_load_id": "1"})
    failing = {"events": build_stream("append")}
    with pytest.raises(DataError, match="the position of the cursor 'at' is lost"):
        read(failing, memories={"events": known}, base_url=api.url)
    assert feed.asked == []


def test_an_append_by_numbers_in_texts_whose_state_is_lost_is_refused(api: Api) -> None:
    feed, known = Feed(api, {"id": 1, "at": "9.5"}, {"id": 2, "at": "10.5"}), Memory({"id": 1, "at": "9.5"}, {"id": 2, "at": "10.5"})
    with pytest.raises(DataError, match="without a column of numbers an append cannot tell"):
        read_events(feed, known, "append", api=api)


def test_an_append_by_a_field_within_an_object_whose_state_is_lost_is_refused(api: Api) -> None:
    api.serve("/v1/events", lambda _: [{"id": 1, "meta": {"at": T1}}])
    stream = {"path": "events", "primary_key": "id", "write_disposition": "append", "cursor": {"field": "meta.at", "param": "since"}}
    assert len(read({"events": stream}, memories={"events": Memory()}, base_url=api.url).get_rows("events")) == 1
    known = Memory({"id": 1, "meta__at": datetime.fromisoformat(T1), "_dlt_load_id": "1"})
    with pytest.raises(DataError, match="without a field of the row itself an append cannot tell"):
        read({"events": stream}, memories={"events": known}, base_url=api.url)


def test_another_cursor_field_begins_anew(api: Api) -> None:
    feed, memory = Feed(api, {"id": 1, "at": T1, "seen": T1}, {"id": 2, "at": T2, "seen": T1}), Memory()
    read_events(feed, memory, "merge", api=api)
    read({"events": {**build_stream("merge"), "cursor": {"field": "seen", "param": "since"}}}, memories={"events": memory}, base_url=api.url)
    assert feed.asked == [None, None]
    assert memory.state == {"field": "seen", "position": T1}


@pytest.mark.parametrize("value", ["9999-12-31", "9999-12-31T00:00:00Z"])
def test_a_cursor_in_the_future_is_reported_in_each_load(api: Api, warehouse: Warehouse, value: str) -> None:
    Feed(api, {"id": 1, "at": T1}, {"id": 2, "at": value})
    for number in (1, 2):
        load(warehouse, "merge")
        told = [message for message in warehouse.messages if "stream events: the cursor field 'at' has come to 9999-12-31" in message]
        assert len(told) == number
        assert "--full-refresh" in told[-1]
