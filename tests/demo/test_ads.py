"""The demo's inbox: whole or not there, dropped once, the same everywhere, and as imperfect as it means to be."""

import hashlib
from pathlib import Path

import pytest

from fabric_assets.demo import ads
from fabric_assets.demo.ads import make_rows, write_inbox
from tests.demo.expected_ads import FATES, Spend, read_good_rows


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    write_inbox(tmp_path / "ads")
    return tmp_path / "ads"


def test_every_file_has_an_expected_result_and_is_older_than_the_next(inbox: Path) -> None:
    files = sorted(inbox.iterdir(), key=lambda file: file.stat().st_mtime)
    assert [file.name for file in files] == list(FATES)
    assert (inbox / "2018-09.csv").read_bytes() == (inbox / "2018-09 (1).csv").read_bytes()


def test_the_good_rows_of_every_format_are_those_of_the_months(inbox: Path) -> None:
    made = [
        Spend(row.day, row.campaign, row.channel, row.cents, row.clicks, row.conversions)
        for month in ((2018, 9), (2018, 10), (2018, 11), (2018, 12), (2019, 1))
        for row in make_rows(*month)
    ]
    found = list(read_good_rows(inbox))
    assert found == [row for row in made if row in found]
    assert len(made) - len(found) == 6
    assert {row.campaign for row in found if not row.campaign.isascii()} == {"Café stories"}


def test_the_files_are_the_same_on_every_machine(inbox: Path) -> None:
    # Not the packed ones: compressors differ.
    texts = b"".join(file.read_bytes() for file in sorted(inbox.glob("*.csv")))
    assert hashlib.sha256(texts).hexdigest() == "752fd10c0b504dacb709729d854f5ca0c2cba7ed7881ab5b6a087ec5b3f85ca8"


def test_files_that_a_load_has_moved_on_are_not_dropped_again(inbox: Path) -> None:
    for file in inbox.iterdir():
        file.unlink()
    write_inbox(inbox)
    assert list(inbox.iterdir()) == []


def test_an_incomplete_inbox_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(ads, "build_workbook", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_inbox(tmp_path / "ads")
    assert list(tmp_path.iterdir()) == []
    write_inbox(tmp_path / "ads")
    assert {file.name for file in (tmp_path / "ads").iterdir()} == set(FATES)
