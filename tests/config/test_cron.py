"""Our five cron fields against Dagster's own check: what we accept, Dagster accepts."""

import pytest
from dagster._utils.schedules import is_valid_cron_string
from hypothesis import given
from hypothesis import strategies as st

from fabric_assets.config.cron import get_cron_error

NUMBERS = st.integers(0, 70).map(str)
WORDS = st.one_of(NUMBERS, st.sampled_from(["*", "jan", "feb", "dec", "sun", "mon", "sat", "L", "?", "x", "-1", "1.5", ""]))
PIECES = st.one_of(
    WORDS,
    st.tuples(WORDS, WORDS).map("-".join),
    st.tuples(WORDS, NUMBERS).map("/".join),
    st.tuples(st.tuples(NUMBERS, NUMBERS).map("-".join), NUMBERS).map("/".join),
)
FIELDS = st.lists(PIECES, min_size=1, max_size=3).map(",".join)


@given(st.lists(FIELDS, min_size=4, max_size=6).map(" ".join))
def test_dagster_accepts_every_cron_that_we_accept(cron: str) -> None:
    if get_cron_error(cron) is None:
        assert is_valid_cron_string(cron)


def within(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.tuples(st.one_of(st.just("*"), spans), st.integers(1, high)).map(lambda pair: f"{pair[0]}/{pair[1]}")
    return st.one_of(st.just("*"), st.lists(st.one_of(number.map(str), spans, steps), min_size=1, max_size=3).map(",".join))


@given(st.tuples(within(0, 59), within(0, 23), within(1, 28), within(1, 12), within(0, 7)).map(" ".join))
def test_every_well_formed_cron_is_accepted_by_us_and_by_dagster(cron: str) -> None:
    assert get_cron_error(cron) is None
    assert is_valid_cron_string(cron)


@pytest.mark.parametrize(
    "cron", ["0 3 * * *", "*/15 * * * *", "0 9-17/2 * * mon-fri", "0 0 1,15 * *", "5 4 * JAN,jul SUN", "0 0 29 2 *", "0 0 * * 7", "0 0 31 1,2 *"]
)
def test_usual_crons_are_accepted(cron: str) -> None:
    assert get_cron_error(cron) is None
    assert is_valid_cron_string(cron)


@pytest.mark.parametrize(
    ("cron", "words"),
    [
        ("", "five fields"),
        ("0 3 * * * *", "not 6"),
        ("@daily", "0 0 * * *"),
        ("60 * * * *", "minute: must be from 0 to 59"),
        ("0 24 * * *", "hour: must be from 0 to 23"),
        ("0 0 0 * *", "day of month: must be from 1 to 31"),
        ("0 0 * 13 *", "month: must be from 1 to 12"),
        ("0 0 * * 8", "day of week: must be from 0 to 7"),
        ("0 0 * foo *", "names (jan, feb"),
        ("5-1 * * * *", "upwards"),
        ("5/10 * * * *", "a step needs * or a range"),
        ("*/0 * * * *", "a step must be from 1"),
        ("0 0 30 2 *", "no month that it names has a day 30"),
        ("0 0 31 4,6,9,11 *", "no month that it names has a day 31"),
        ("1,,2 * * * *", "takes *, numbers"),
        ("٣ * * * *", "takes *, numbers"),
    ],
)
def test_the_error_of_a_wrong_cron_says_what_is_wrong(cron: str, words: str) -> None:
    assert words in (get_cron_error(cron) or "")
