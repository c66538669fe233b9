"""The oracle sees each kind of fault; one that does not would let every other test here pass."""

import pytest

from tests.faults.oracle import NONE, Counts, Row, count_rows

ROWS = [(1, "acme", "a"), (2, "acme", "b")]


@pytest.mark.parametrize(
    ("found", "counts"),
    [
        (ROWS, NONE),
        (ROWS[:1], Counts(lost=1)),
        ([*ROWS, ROWS[0], ROWS[0]], Counts(doubled=2)),
        ([*ROWS, (3, "acme", "c")], Counts(unexpected=1)),
        ([ROWS[0], (2, "acme", "old")], Counts(lost=1, unexpected=1)),
        ([*ROWS, (1, "globex", "a")], Counts(leaked=1)),
        ([], Counts(lost=2)),
    ],
)
def test_each_fault_is_counted_under_its_own_name(found: list[Row], counts: Counts) -> None:
    assert count_rows(ROWS, found, owner="acme") == counts


def test_a_row_that_the_source_holds_twice_belongs_there_twice() -> None:
    assert count_rows([*ROWS, ROWS[0]], [*ROWS, ROWS[0]], owner="acme") == NONE
    assert count_rows([*ROWS, ROWS[0]], [*ROWS, ROWS[0], ROWS[0]], owner="acme") == Counts(doubled=1)
