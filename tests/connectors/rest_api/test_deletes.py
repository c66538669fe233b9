"""Deletes at an API: a load reads all keys after the rows, and marks or deletes the rows that the API no longer has."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from werkzeug import Request, Response

from fabric_assets.config.sources.deletes import DeletesCheck
from fabric_assets.factories.ingestion import describe_load
from fabric_assets.loading.checks import run_check
from tests.connectors.rest_api.rest import Api, Warehouse, answer_json
from tests.support.killed_loads import kill_at_commit
from tests.support.lengths import AT_FULL_LENGTH

SOFT, HARD = {"mode": "soft", "max": "50%"}, {"mode": "hard", "max": "50%"}
LIVE = "select id from contacts where _fabric_deleted_at is null order by id"
ROWS_A_PAGE = 4


class Contacts:
    """An endpoint `contacts` with notes below each contact.

    Args:
        on_keys: changes the answer to the request of a page of the key read, by the page's number; None leaves it as it is.
    """

    def __init__(self, api: Api) -> None:
        self.rows = {number: {"id": number, "name": "first", "seq": number, "tags": ["a", "b"]} for number in range(1, 11)}
        self.notes = {(number, note): {"id": note, "text": f"note {note}"} for number in self.rows for note in (1, 2)}
        self.on_keys: Callable[[int], Response | None] = lambda page: None
        self.has_broken_notes = False
        self.api = api
        api.serve("/v1/contacts", self._answer)
        api.serve("/v1/ids", lambda request: {"ids": [{"id": number} for number in self.rows], "kind": request.args.get("kind")})
        for number in range(1, 13):
            api.serve(f"/v1/contacts/{number}/notes", lambda request, number=number: self._list_notes(number))

    def _list_notes(self, contact: int) -> Any:
        if self.has_broken_notes and contact == 1:
            return answer_json({"message": "no"}, 403)
        return [note for (parent, _), note in self.notes.items() if parent == contact]

    def put(self, number: int, name: str) -> None:
        seq = max(row["seq"] for row in self.rows.values()) + 1
        self.rows[number] = {"id": number, "name": name, "seq": seq, "tags": ["a", "b"]}

    def delete(self, *numbers: int) -> None:
        for number in numbers:
            del self.rows[number]

    def _answer(self, request: Request) -> Response:
        page = int(request.args.get("page", "1"))
        if "since" not in request.args and (changed := self.on_keys(page)):
            return changed
        rows = [row for row in self.rows.values() if row["seq"] >= int(request.args.get("since", "0"))]
        first = (page - 1) * ROWS_A_PAGE
        return answer_json({"rows": rows[first : first + ROWS_A_PAGE], "pages": -(-len(rows) // ROWS_A_PAGE)})


@pytest.fixture
def contacts(api: Api) -> Contacts:
    return Contacts(api)


def build(deletes: Any, **stream: Any) -> dict[str, Any]:
    paginator = {"type": "page_number", "total": "pages"}
    cursor = {"field": "seq", "param": "since", "initial": 0}
    return {"contacts": {"path": "contacts", "primary_key": "id", "data": "rows", "paginator": paginator, "cursor": cursor, "deletes": deletes, **stream}}


def check(warehouse: Warehouse) -> tuple[bool, str]:
    outcome = run_check(DeletesCheck(), tenant=warehouse.tenant.config, source="crm", stream="contacts", settings=warehouse.settings)
    return outcome.passed, str(outcome.metadata.get("message", ""))


def get_ids(rows: Iterable[tuple[Any, ...]]) -> list[Any]:
    return [row[0] for row in rows]


def test_a_soft_delete_marks_the_row_until_the_api_has_it_again(any_warehouse: Warehouse, contacts: Contacts) -> None:
    streams = build(SOFT)
    assert any_warehouse.load(streams)["contacts"].record.rows_deleted == 0
    contacts.delete(2, 3)
    contacts.put(11, "new")
    contacts.api.requests.clear()
    report = any_warehouse.load(streams)["contacts"]
    assert (report.record.rows_read, report.record.rows_deleted, report.rows_total, report.record.source_rows) == (2, 2, 11, 9)
    assert describe_load(any_warehouse.tenant.config, "crm", report)["rows_deleted"] == 2
    assert any("2 rows marked as deleted, which the source no longer has" in message for message in any_warehouse.messages)
    # The keys are read after the rows, from the beginning, and twice, because pages move.
    queries = contacts.api.get_queries("/v1/contacts")
    assert ["since" in query for query in queries] == [True, *[False] * 6]
    assert get_ids(any_warehouse.read(LIVE)) == [1, 4, 5, 6, 7, 8, 9, 10, 11]
    # One comes back with a new cursor value, the other one as it was, which no cursor reads.
    contacts.put(2, "back")
    contacts.rows[3] = {"id": 3, "name": "first", "seq": 3, "tags": []}
    assert any_warehouse.load(streams)["contacts"].warnings == ()
    assert get_ids(any_warehouse.read(LIVE)) == list(range(1, 12))
    assert check(any_warehouse) == (True, "")


def test_a_hard_delete_removes_rows_with_their_lists_and_those_of_child_streams(any_warehouse: Warehouse, contacts: Contacts) -> None:
    child = {"path": "contacts/{contacts.id}/notes", "primary_key": ["_contacts_id", "id"], "include_from_parent": ["id"], "deletes": HARD}
    streams = {**build(HARD), "notes": child}
    any_warehouse.load(streams)
    contacts.delete(2)
    for key in ((2, 1), (2, 2), (9, 1)):
        del contacts.notes[key]
    reports = any_warehouse.load(streams)
    assert {name: (report.record.rows_deleted, report.rows_total, report.rows_missing) for name, report in reports.items()} == {
        "contacts": (1, 9, 0),
        "notes": (3, 17, 0),
    }
    assert any_warehouse.read("select count(*) from contacts where id = 2") == [(0,)]
    assert any_warehouse.read("select count(*) from contacts__tags") == [(18,)]
    assert any_warehouse.read("select _contacts_id, id from notes where _contacts_id in (2, 9)") == [(9, 2)]
    # A child whose endpoint fails keeps its own rows, and its parent's are followed.
    contacts.delete(3)
    contacts.has_broken_notes = True
    contacts.put(4, "changed")
    reports = any_warehouse.load(streams)
    assert reports["contacts"].record.rows_deleted == 1
    assert (reports["notes"].record.rows_deleted, reports["notes"].rows_total) == (0, 17)
    assert "the source's keys could not be read" in (reports["notes"].record.deletes_kept or "")


def refuse(status: int) -> Callable[[int], Response | None]:
    return lambda page: answer_json({"message": "no"}, status) if page == 2 else None


def leave_out(page: int) -> Response | None:
    return answer_json({"rows": [], "pages": 3}) if page == 2 else None


def end_early(page: int) -> Response | None:
    return answer_json({"rows": [], "pages": 3}) if page == 3 else None


def lead_away(page: int) -> Response | None:
    return Response("", 302, {"Location": "http://elsewhere.example/v1"}) if page == 2 else None


FAULTS: list[tuple[Callable[[int], Response | None], str]] = [
    (refuse(403), "the source's keys could not be read: "),
    (refuse(503), "the source's keys could not be read: "),
    (leave_out, "the source's keys could not be read: page 2 is empty, although the API counts it among its pages"),
    (end_early, "the source's keys could not be read: page 3 is empty, although the API counts it among its pages"),
    (lead_away, "the source's keys could not be read: "),
]


@pytest.mark.usefixtures("no_waiting")
def test_a_key_read_that_fails_or_ends_early_deletes_nothing(any_warehouse: Warehouse, contacts: Contacts) -> None:
    streams = build(HARD)
    any_warehouse.load(streams)
    contacts.delete(1, 10)
    for number, (fault, problem) in enumerate(FAULTS, start=11):
        contacts.put(number, "new")
        contacts.delete(*(each for each in (number - 1,) if each > 10))
        contacts.on_keys = fault
        report = any_warehouse.load(streams, retries={"max": 1})["contacts"]
        assert (report.record.rows_read > 0, report.record.rows_deleted, report.rows_total) == (True, 0, number), (fault, "the new row is loaded")
        passed, message = check(any_warehouse)
        assert (passed, message.startswith(problem)) == (False, True), message
    contacts.on_keys = lambda page: None
    assert any_warehouse.load(streams)["contacts"].record.rows_deleted == 6
    assert check(any_warehouse) == (True, "")


def test_rows_that_the_api_counts_and_does_not_give_are_not_deleted(warehouse: Warehouse, api: Api) -> None:
    """By offset, the API counts rows: it ends with fewer than it counts."""
    shown = list(range(1, 7))

    def answer(request: Request) -> Any:
        offset = int(request.args["offset"])
        rows = [{"id": number, "seq": number} for number in shown]
        return {"rows": rows[offset : offset + 2], "total": 6}

    api.serve("/v1/contacts", answer)
    streams = build(HARD, paginator={"type": "offset", "limit": 2, "total": "total"})
    warehouse.load(streams)
    del shown[4:]
    report = warehouse.load(streams)["contacts"]
    assert (report.record.rows_deleted, report.rows_total) == (0, 6)
    assert "the API says that there are 6 rows, and gave 4" in (report.record.deletes_kept or "")


def test_a_row_that_moves_to_a_page_that_was_read_already_is_not_deleted(warehouse: Warehouse, contacts: Contacts) -> None:
    """A row of the first page goes while the keys are read. The row behind that page moves up, and is in none of the pages."""
    streams = build({"mode": "hard", "max": "50%"}, paginator={"type": "page_number"})
    warehouse.load(streams)
    warehouse.load(streams)

    def delete_first(page: int) -> None:
        if page == 2 and 1 in contacts.rows:
            contacts.delete(1)

    contacts.on_keys = delete_first
    assert warehouse.load(streams)["contacts"].record.rows_deleted == 0
    assert get_ids(warehouse.read("select id from contacts order by id")) == list(range(1, 11))
    assert warehouse.load(streams)["contacts"].record.rows_deleted == 1
    assert get_ids(warehouse.read("select id from contacts order by id")) == list(range(2, 11))


def test_more_deletes_than_max_delete_nothing(warehouse: Warehouse, contacts: Contacts) -> None:
    streams = build("soft")
    warehouse.load(streams)
    contacts.delete(1, 2)
    report = warehouse.load(streams)["contacts"]
    assert (report.record.rows_deleted, len(warehouse.read(LIVE))) == (0, 10)
    assert "2 of 10 rows are not in the source any more, and deletes.max allows 10%: nothing was deleted" in (report.record.deletes_kept or "")


def test_keys_are_read_where_deletes_says_and_compared_with_the_same_alone(warehouse: Warehouse, contacts: Contacts) -> None:
    own = {"mode": "hard", "max": "100%", "path": "ids", "params": {"kind": "all"}, "data": "ids", "paginator": {"type": "single_page"}}
    token = warehouse.settings.data_dir / "token"
    token.write_text("one")
    token.chmod(0o600)
    source: dict[str, Any] = {"auth": {"type": "bearer", "token": {"file": "token"}}}
    streams = build(own)
    warehouse.load(streams, **source)
    contacts.delete(1)
    assert warehouse.load(streams, **source)["contacts"].record.rows_deleted == 1
    assert contacts.api.get_queries("/v1/ids")[-1] == {"kind": "all"}
    changed = "what the source's keys were last read with has changed"
    for number, change in enumerate(
        [lambda: token.write_text("two"), lambda: own.update(params={"kind": "some"}), lambda: source.update(headers={"X-A": "1"})], 2
    ):
        change()
        contacts.delete(number)
        report = warehouse.load(build(own), **source)["contacts"]
        assert (report.record.rows_deleted, any(changed in warning for warning in report.warnings)) == (0, True)
        assert warehouse.load(build(own), **source)["contacts"].record.rows_deleted == 1, "said once: the change is meant"
    assert "two" not in str(warehouse.tenant.ask("select state from acme_fabric.stream_state"))


def test_a_new_password_alone_changes_nothing(warehouse: Warehouse, contacts: Contacts) -> None:
    password = warehouse.settings.data_dir / "password"
    password.write_text("one")
    password.chmod(0o600)
    source = {"auth": {"type": "basic", "username": "ada", "password": {"file": "password"}}}
    warehouse.load(build(HARD), **source)
    contacts.delete(1)
    password.write_text("two")
    assert warehouse.load(build(HARD), **source)["contacts"].record.rows_deleted == 1
    source["auth"]["username"] = "bob"
    contacts.delete(2)
    assert warehouse.load(build(HARD), **source)["contacts"].record.rows_deleted == 0


def give_stray(page: int) -> Response | None:
    return answer_json({"rows": ["no object", *({"id": number} for number in range(2, 11))], "pages": 1})


def test_an_item_that_is_no_object_may_be_any_row(warehouse: Warehouse, contacts: Contacts) -> None:
    streams = build({"mode": "hard", "max": "100%"})
    warehouse.load(streams)
    contacts.on_keys = give_stray
    report = warehouse.load(streams)["contacts"]
    assert (report.record.rows_deleted, report.rows_total) == (0, 10)
    assert "1 of its keys do not fit the table's key" in (report.record.deletes_kept or "")


@pytest.mark.parametrize("bad", ["K1", {"of": 1}, 1.5, "\ud800"])
def test_a_key_that_fits_no_type_deletes_no_other_row(warehouse: Warehouse, contacts: Contacts, bad: Any) -> None:
    """The row may be one of the table whose key has got another form."""
    streams = build({"mode": "hard", "max": "100%"}, rejects={"max": "100%"}, schema_contract={"data_type": "discard"})
    warehouse.load(streams)
    contacts.rows[1] = {**contacts.rows[1], "id": bad}
    report = warehouse.load(streams)["contacts"]
    assert (report.record.rows_deleted, report.rows_total) == (0, 10)
    assert "1 of its keys do not fit the table's key" in (report.record.deletes_kept or "")
    contacts.delete(2, 3)
    assert warehouse.load(streams)["contacts"].record.rows_deleted == 3, "more rows are missing than keys do not fit"


KILLS = [
    pytest.param("duckdb", "before", id="duckdb-before"),
    pytest.param("duckdb", "after", marks=AT_FULL_LENGTH, id="duckdb-after"),
    pytest.param("postgres", "before", marks=AT_FULL_LENGTH, id="postgres-before"),
    pytest.param("postgres", "after", id="postgres-after"),
]


@pytest.mark.parametrize(("any_warehouse", "moment"), KILLS, indirect=["any_warehouse"])
def test_a_kill_at_the_commit_deletes_all_or_nothing(any_warehouse: Warehouse, contacts: Contacts, moment: str) -> None:
    streams = build(HARD)
    any_warehouse.load(streams)
    contacts.delete(1, 2, 3)
    contacts.put(11, "new")
    kill_at_commit(any_warehouse.tenant, moment)
    live = get_ids(any_warehouse.read("select id from contacts order by id"))
    assert live == (list(range(4, 12)) if moment == "after" else list(range(1, 11)))
    report = any_warehouse.load(streams)["contacts"]
    assert (report.record.rows_deleted, report.record.source_rows) == (0 if moment == "after" else 3, 8)
