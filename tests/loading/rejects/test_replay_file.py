"""A corrected file of exported rejects: exactly its rows are loaded, as rows of the files that they were dropped in."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fabric_assets.errors import ConfigurationError, DataError
from fabric_assets.loading.rejects.csv_export import RejectsCsv
from fabric_assets.loading.rejects.reader import open_rejects
from fabric_assets.loading.rejects.replay import replay
from fabric_assets.loading.rejects.replay_file import CorrectedReplay, CorrectedStream, replay_file
from fabric_assets.settings import Settings
from tests.connectors.csv_import.workbooks import row as build_row
from tests.connectors.csv_import.workbooks import write_workbook
from tests.loading.rejects.killed_replays import kill_while_it_waits
from tests.support.folders import inbox, stable_at_once
from tests.support.shop import Tenant

__all__ = ["inbox", "stable_at_once"]
pytestmark = pytest.mark.usefixtures("stable_at_once")
COLUMNS = {"day": {"type": "date", "required": True}, "spend": {"type": "decimal", "min": 0}, "campaign": {}}
STREAM = {"glob": "*.csv", "mapping": {"Kosten": "spend", "Spend": "spend", "Tag": "day"}, "columns": COLUMNS}
JAN = "Day,Spend,campaign,Note\n2026-01-01,1.50,brand,a\nyesterday,2.5,=cmd(),b\n2026-01-03,-3,-x,c\n2026-01-04,4,search\n"
Row = dict[str, str]
Correction = Callable[[Row], None]


def build(settings: Settings, warehouse: str | None = None, **stream: Any) -> Tenant:
    return Tenant(settings, {"type": "csv_import", "path": "inbox/acme", "streams": {"ads": STREAM | stream}}, warehouse=warehouse)


def export(tenant: Tenant) -> list[Row]:
    made, file = RejectsCsv(), io.StringIO(newline="")
    for step in ("survey", "write"):
        if step == "write":
            made.write_header(file)
        with open_rejects(tenant.config, tenant.settings) as found:
            made.survey(tenant.config, found) if step == "survey" else made.write(file, tenant.config, found)
    return list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))


def save(path: Path, rows: list[Row], *, delimiter: str = ",", encoding: str = "utf-8") -> str:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def run(tenant: Tenant, file: str | Path, **chosen: str) -> CorrectedReplay:
    return replay_file(tenant.config, tenant.settings, str(file), report=tenant.messages.append, **chosen)


def read(tenant: Tenant) -> list[tuple[Any, ...]]:
    rows = tenant.ask(
        "select cast(day as text), cast(spend as text), campaign, _fabric_unmapped, _fabric_file, _fabric_row from acme_raw_shop.ads order by 5, 6"
    )
    return [(day, None if spend is None else float(spend), *rest) for day, spend, *rest in rows]


def get_numbers(tenant: Tenant) -> list[tuple[Any, ...]]:
    return tenant.ask("select name, status, rows_read, rows_loaded, rows_rejected from acme_fabric.imported_files order by name, status")


def test_corrected_rows_keep_file_and_line(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    (inbox / "jan.csv").write_text(JAN)
    tenant = build(settings, warehouse)
    tenant.load()
    ((sha256,),) = tenant.ask("select distinct _fabric_file_sha256 from acme_raw_shop.ads")
    ragged, first, second = sorted(export(tenant), key=lambda row: (row["raw"] == "", int(row["row_number"])))
    assert list(first)[:4] == ["Day", "Spend", "campaign", "Note"]
    assert list(first)[-2:] == ["raw", "_fabric_reject"]
    assert (first["campaign"], second["campaign"], second["Spend"]) == ("'=cmd()", "'-x", "-3")
    first["Day"], second["Spend"] = "2026-01-02", "3,5"
    ragged |= {"Day": "2026-01-04", "Spend": "4", "campaign": "search"}

    result = run(tenant, save(tmp_path / "corrected.csv", [first, second, ragged], delimiter=";", encoding="utf-16"))
    assert result == CorrectedReplay([CorrectedStream("shop", "ads", replayed=3)])
    assert read(tenant) == [
        ("2026-01-01", 1.5, "brand", '{"Note": "a"}', "jan.csv", 2),
        ("2026-01-02", 2.5, "=cmd()", '{"Note": "b"}', "jan.csv", 3),
        ("2026-01-03", 3.5, "-x", '{"Note": "c"}', "jan.csv", 4),
        ("2026-01-04", 4.0, "search", None, "jan.csv", 5),
    ]
    assert tenant.ask("select distinct _fabric_file_sha256 from acme_raw_shop.ads") == [(sha256,)]
    assert tenant.ask("select count(distinct _fabric_imported_at) from acme_raw_shop.ads") == [(2,)]
    assert export(tenant) == []
    assert get_numbers(tenant) == [("jan.csv", "loaded", 4, 4, 0)]
    assert tenant.ask("select rows_read, rows_loaded, rows_total from acme_fabric.loads order by started_at desc")[0] == (3, 3, 4)

    again = run(tenant, tmp_path / "corrected.csv")
    assert (again.streams, again.gone, again.is_complete) == ([], [2, 3, 4], True)
    assert tenant.load()["ads"].rows_total == 4


def test_a_row_that_is_still_bad_stays_rejected_and_says_why(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    (inbox / "jan.csv").write_text(JAN)
    tenant = build(settings, warehouse)
    tenant.load()
    rows = export(tenant)
    for row in rows:
        row["Day"] = "2026-01-09" if row["raw"] == "" else ""
    stranger, nameless = {**rows[0], "_fabric_reject": "0" * 64}, {**rows[0], "_fabric_reject": ""}
    path = save(tmp_path / "corrected.csv", [*rows, rows[0], stranger, nameless])
    result = run(tenant, path)
    (stream,) = result.streams
    assert (stream.replayed, stream.error) == (1, "")
    assert sorted((bad.row_number, bad.reason) for bad in stream.still_bad) == [(4, "too_low"), (5, "no_value")]
    assert any("-3 is below" in bad.message.replace("'", "") for bad in stream.still_bad)
    assert result.gone == [6]
    assert result.refused == {5: "duplicate: same rejected row as line 2", 7: "_fabric_reject is empty"}
    assert not result.is_complete
    assert sorted(row["row_number"] for row in export(tenant)) == ["4", "5"]
    assert get_numbers(tenant) == [("jan.csv", "loaded", 4, 2, 2)]
    (second,) = run(tenant, path).streams
    assert (second.replayed, len(second.still_bad)) == (0, 2)


def test_rows_of_several_files_come_back_to_each(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    (inbox / "jan.csv").write_text("Day,Spend\n2026-01-01,1.5\nx,2.5\n")
    (inbox / "feb.csv").write_text("Tag;Kosten;reason\n2026-02-01;1.234,56;late\ny;1.234;early\n")
    tenant = build(settings, warehouse)
    tenant.load()
    rows = export(tenant)
    assert {"Day", "Spend", "Tag", "Kosten", "reason", "rejected_reason"} <= set(rows[0])
    for row in rows:
        row["Day" if row["origin"] == "jan.csv" else "Tag"] = "2026-03-01"
    (stream,) = run(tenant, save(tmp_path / "corrected.csv", rows), source="shop", stream="ads").streams
    assert stream == CorrectedStream("shop", "ads", replayed=2)
    # 1.234 is what it was in its file, where a comma stood before fractions.
    assert read(tenant) == [
        ("2026-02-01", 1234.56, None, '{"reason": "late"}', "feb.csv", 2),
        ("2026-03-01", 1234.0, None, '{"reason": "early"}', "feb.csv", 3),
        ("2026-01-01", 1.5, None, None, "jan.csv", 2),
        ("2026-03-01", 2.5, None, None, "jan.csv", 3),
    ]
    assert get_numbers(tenant) == [("feb.csv", "loaded", 2, 2, 0), ("jan.csv", "loaded", 2, 2, 0)]


def test_a_corrected_row_yields_to_a_newer_one_with_its_key(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    tenant = build(settings, warehouse, primary_key="campaign")
    (inbox / "1.csv").write_text("day,spend,campaign\n2026-01-01,1,a\n2026-01-01,-1,b\n2026-01-01,-1,c\n")
    tenant.load()
    (inbox / "2.csv").write_text("day,spend,campaign\n2026-01-02,2,b\n")
    tenant.load()
    (inbox / "3.csv").write_text("day,spend,campaign\n2026-01-03,-3,a\n2026-01-03,3,z\n2026-01-03,3,\n")
    tenant.load()
    rows = export(tenant)
    assert sorted(row["reason"] for row in rows if row["origin"] == "3.csv") == ["null_key", "too_low"]
    for row in rows:
        row["spend"], row["campaign"] = row["spend"].lstrip("'-"), row["campaign"] or "d"
    result = run(tenant, save(tmp_path / "corrected.csv", rows))
    assert result == CorrectedReplay([CorrectedStream("shop", "ads", replayed=4, superseded=1)])
    found = tenant.ask("select campaign, cast(spend as double precision), _fabric_file, _fabric_row from acme_raw_shop.ads order by 1")
    assert found == [("a", 3.0, "3.csv", 2), ("b", 2.0, "2.csv", 2), ("c", 1.0, "1.csv", 4), ("d", 3.0, "3.csv", 4), ("z", 3.0, "3.csv", 3)]


def test_of_two_versions_side_by_side_each_gets_its_own_rows(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    tenant = build(settings, warehouse, on_new_version="append")
    for content in ("day,spend\n2026-01-01,1\nx,1\n", "day,spend\n2026-01-02,2\ny,2\n"):
        (inbox / "jan.csv").write_text(content)
        tenant.load()
    rows = [{**row, "day": "2026-01-09"} for row in export(tenant)]
    for row in rows:
        assert run(tenant, save(tmp_path / "corrected.csv", [row])).streams[0].replayed == 1
    found = tenant.ask("select cast(max(spend) as integer), count(*), count(distinct spend) from acme_raw_shop.ads group by _fabric_file_sha256 order by 1")
    assert found == [(1, 2, 1), (2, 2, 1)]
    assert get_numbers(tenant) == [("jan.csv", "loaded", 2, 2, 0)] * 2


def test_a_value_that_must_be_unique_is_so_beside_the_loaded_rows(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    tenant = build(settings, warehouse, columns={**COLUMNS, "campaign": {"unique": True}})
    (inbox / "jan.csv").write_text("day,spend,campaign\n2026-01-01,1,a\n2026-01-02,2,a\n")
    tenant.load()
    (row,) = export(tenant)
    (stream,) = run(tenant, save(tmp_path / "corrected.csv", [row])).streams
    assert [(bad.row_number, bad.reason) for bad in stream.still_bad] == [(3, "duplicate")]
    assert run(tenant, save(tmp_path / "corrected.csv", [{**row, "campaign": "b"}])).streams[0].replayed == 1


def test_a_dropped_export_is_quarantined_with_the_command_that_replays_it(settings: Settings, inbox: Path, warehouse: str | None) -> None:
    (inbox / "jan.csv").write_text("day,spend\n2026-01-01,1\nx,2\n")
    tenant = build(settings, warehouse)
    tenant.load()
    save(inbox / "corrected.csv", [{**row, "day": "2026-01-02"} for row in export(tenant)])
    tenant.load()
    ((name, message),) = tenant.ask("select name, message from acme_fabric.imported_files where reason = 'mended_rejects'")
    assert name == "corrected.csv"
    path = message.rpartition("--file ")[2]
    assert f"fabric rejects replay acme --source shop --file {path}" in message
    assert len(read(tenant)) == 1
    assert run(tenant, path, source="shop", stream="ads").streams == [CorrectedStream("shop", "ads", replayed=1)]
    assert [row[-2:] for row in read(tenant)] == [("jan.csv", 2), ("jan.csv", 3)]
    # It is done with, and a second replay finds it no more.
    assert [(name, status) for name, status, *_ in get_numbers(tenant)] == [("corrected.csv", "duplicate"), ("jan.csv", "loaded")]
    assert sorted(path.relative_to(inbox).as_posix() for path in inbox.rglob("*.*")) == [f"archive/{Path(path).name}", "jan.csv"]
    assert run(tenant, f"archive/{Path(path).name}").gone == [2]
    assert tenant.load()["ads"].rows_total == 2


def test_rows_of_streams_that_were_not_chosen_are_left_and_not_taken_for_done(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    shapes = {name: {**STREAM, "glob": f"{name}/*.csv"} for name in ("ads", "leads")}
    tenant = Tenant(settings, {"type": "csv_import", "path": "inbox/acme", "streams": shapes}, warehouse=warehouse)
    for name in shapes:
        (inbox / name).mkdir()
        (inbox / name / "jan.csv").write_text(f"day,spend,campaign\n2026-01-01,1,{name}\nx,2,{name}\n")
    tenant.load()
    rows = [{**row, "day": "2026-01-02"} for row in export(tenant)]
    done = {**rows[0], "_fabric_reject": "0" * 64}
    save(inbox / "ads" / "corrected.csv", [*rows, done])
    tenant.load()
    ((message,),) = tenant.ask("select message from acme_fabric.imported_files where reason = 'mended_rejects'")
    path = message.rpartition("--file ")[2]
    line = next(number for number, row in enumerate(rows, start=2) if row["campaign"] == "leads")

    part = run(tenant, path, source="shop", stream="ads")
    assert (part.streams, part.elsewhere, part.gone, part.is_complete) == ([CorrectedStream("shop", "ads", replayed=1)], [line], [4], False)
    assert (inbox / path).exists(), "it stays in quarantine, where the rest of it can be replayed from"
    whole = run(tenant, path, source="shop")
    assert (whole.streams, whole.elsewhere, whole.is_complete) == ([CorrectedStream("shop", "leads", replayed=1)], [], True)
    assert not (inbox / path).exists()
    assert export(tenant) == []


def test_unchanged_cells_keep_their_values(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    """A row that was fit to load, and lacked its key, is kept as values, which are not spelt as the file spells them."""
    columns = {**COLUMNS, "day": {"type": "date", "formats": ["%d.%m.%Y"]}}
    tenant = build(settings, warehouse, columns=columns, decimal=",", primary_key="campaign")
    (inbox / "jan.csv").write_text("day;spend;campaign;=note\n03.01.2026;1.234,5;;+1\n04.01.2026;2,5;a;x\n05.01.2026;-2,5;b;-y\n")
    tenant.load()
    rows = export(tenant)
    assert {row["'=note"] for row in rows} == {"'+1", "'-y"}
    for row in rows:
        row["campaign"], row["spend"] = row["campaign"] or "c", row["spend"].lstrip("'-")
    assert run(tenant, save(tmp_path / "corrected.csv", rows)) == CorrectedReplay([CorrectedStream("shop", "ads", replayed=2)])
    assert read(tenant) == [
        ("2026-01-03", 1234.5, "c", '{"=note": "+1"}', "jan.csv", 2),
        ("2026-01-04", 2.5, "a", '{"=note": "x"}', "jan.csv", 3),
        ("2026-01-05", 2.5, "b", '{"=note": "-y"}', "jan.csv", 4),
    ]


def test_columns_of_other_files_and_empty_unknown_columns_do_no_harm(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    tenant = build(settings, warehouse, unmapped="refuse")
    (inbox / "jan.csv").write_text(f"day,spend,\n2026-01-01,1,\nx,2,stray\n2026-01-03,x,\nx,4,\n2026-01-05,5{'y' * 9_000},\n")
    tenant.load()
    rows = export(tenant)
    assert [row["raw"][:20] for row in rows if row["raw"]] == ['{"day": "2026-01-05"']
    for row in rows:
        row["day"] = f"2026-01-0{int(row['row_number']) - 1}"
        row["spend"] = "7"
    rows[0]["my remark"] = ""
    (stream,) = run(tenant, save(tmp_path / "corrected.csv", rows)).streams
    assert [(bad.row_number, bad.reason) for bad in stream.still_bad] == [(3, "unnamed_column")]
    assert tenant.ask("select cast(day as text), _fabric_row from acme_raw_shop.ads order by 2") == [
        *(("2026-01-01", 2), ("2026-01-03", 4), ("2026-01-04", 5), ("2026-01-05", 6))
    ]
    (left,) = export(tenant)
    remarked = {**left, "day": "2026-01-02", "column 3": "", "my remark": "done"}
    assert "no column of the stream is for: my remark" in run(tenant, save(tmp_path / "corrected.csv", [remarked])).streams[0].error
    assert run(tenant, save(tmp_path / "corrected.csv", [{**remarked, "my remark": ""}])).streams[0].replayed == 1


def test_what_a_full_refresh_rejects_again_is_replayed_again(settings: Settings, inbox: Path, warehouse: str | None, tmp_path: Path) -> None:
    (inbox / "jan.csv").write_text(JAN)
    tenant = build(settings, warehouse)
    tenant.load()
    path = save(tmp_path / "corrected.csv", [{**row, "Day": "2026-01-02"} for row in export(tenant)])
    for _ in range(2):
        assert run(tenant, path).streams[0].replayed == 2
        assert len(read(tenant)) == 3
        assert tenant.load(full_refresh=True)["ads"].rows_total == 1
    # A newer version takes all of it along, and leaves nothing to replay.
    (inbox / "jan.csv").write_text("day,spend\n2026-01-01,9\n")
    run(tenant, path)
    assert tenant.load()["ads"].rows_total == 1
    assert run(tenant, path).gone == [2, 3, 4]


def test_a_workbook_does_as_well(settings: Settings, inbox: Path, tmp_path: Path) -> None:
    (inbox / "jan.csv").write_text("day,spend\n2026-01-01,1\nx,2.5\n")
    tenant = build(settings)
    tenant.load()
    (row,) = export(tenant)
    path = tmp_path / "corrected.xlsx"
    cells = build_row(1, A="day", B="spend", C="_fabric_reject") + build_row(2, A="2026-01-02", B="n:2.5", C=row["_fabric_reject"])
    write_workbook(path, {"Sheet1": cells})
    assert run(tenant, path).streams == [CorrectedStream("shop", "ads", replayed=1)]
    assert [row[:2] for row in read(tenant)] == [("2026-01-01", 1.0), ("2026-01-02", 2.5)]


def test_a_file_that_is_not_an_export_is_refused(settings: Settings, inbox: Path, tmp_path: Path) -> None:
    tenant = build(settings)
    (inbox / "jan.csv").write_text("day,spend\nx,2.5\n2026-01-01,1\n")
    tenant.load()
    (tmp_path / "other.csv").write_text("day,spend\n2026-01-01,1\n")
    with pytest.raises(DataError, match="the column _fabric_reject, with the ids of the rejected rows, is missing"):
        run(tenant, tmp_path / "other.csv")
    (tmp_path / "open.csv").write_text('day,_fabric_reject\n"2026-01-01,1\n')
    with pytest.raises(DataError, match="the quote opened in line 2 is not closed"):
        run(tenant, tmp_path / "open.csv")
    with pytest.raises(ConfigurationError, match=r"there is no file quarantine/none.csv"):
        run(tenant, "quarantine/none.csv")
    tenant.change("drop table acme_raw_shop.ads")
    (stream,) = run(tenant, save(tmp_path / "corrected.csv", export(tenant))).streams
    assert "its table is missing" in stream.error


def test_a_plain_replay_names_both_ways(settings: Settings, inbox: Path) -> None:
    tenant = build(settings)
    (inbox / "jan.csv").write_text("day,spend\nx,2.5\n2026-01-01,1\n")
    tenant.load()
    (result,) = replay(tenant.config, settings)
    assert "correct the file and drop it again" in result.error
    assert "fabric rejects replay acme --file corrected.csv" in result.error


def test_a_replay_of_a_file_that_is_killed_has_done_nothing(settings: Settings, inbox: Path, postgres_database: str, tmp_path: Path) -> None:
    (inbox / "jan.csv").write_text(JAN)
    tenant = build(settings, postgres_database)
    tenant.load()
    path = save(tmp_path / "corrected.csv", [{**row, "Day": "2026-01-02"} for row in export(tenant)])
    # The replay has written its rows, and deleted the rejected ones; it waits to change the file's numbers.
    program = f"from fabric_assets.loading.rejects.replay_file import replay_file\nreplay_file(tenant, settings, {path!r})"
    kill_while_it_waits(tenant, program, table="imported_files")
    assert len(read(tenant)) == 1
    assert get_numbers(tenant) == [("jan.csv", "loaded", 4, 1, 3)]
    assert run(tenant, path).streams[0].replayed == 2
