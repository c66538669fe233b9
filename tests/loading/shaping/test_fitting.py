"""A value fits another type exactly or not at all."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric_assets.loading.shaping.fitting import fit, plain
from fabric_assets.rows import arrow_types
from fabric_assets.rows.arrow_types import BIGINT, BINARY, BOOL, DATE, DOUBLE, JSON, TEXT, TIME, TIMESTAMP, TIMESTAMP_UTC

MISFIT = object()
NAN = float("nan")


def dec(precision: int, scale: int) -> Any:
    return pa.decimal128(precision, scale)


@pytest.mark.parametrize(
    ("kind", "source", "values"),
    [
        (BIGINT, TEXT, {"12": 12, "-5": -5, "0": 0, "9223372036854775807": 2**63 - 1}),
        (BIGINT, TEXT, dict.fromkeys(["007", "-0", "+1", " 1", "1.0", "1e3", "", "x", "9223372036854775808", "٣"], MISFIT)),
        (BIGINT, DOUBLE, {3.0: 3, -(2.0**62): -(2**62), 2.5: MISFIT, 2.0**63: MISFIT, float("inf"): MISFIT, NAN: MISFIT}),
        (BIGINT, dec(25, 2), {Decimal("2.00"): 2, Decimal("2.50"): MISFIT, Decimal("92233720368547758080.00"): MISFIT}),
        (BIGINT, pa.uint64(), {2**63 - 1: 2**63 - 1, 2**63: MISFIT}),
        (BIGINT, BOOL, {True: MISFIT}),
        (BIGINT, DATE, {date(2024, 1, 1): MISFIT}),
        (DOUBLE, TEXT, {"1.5": 1.5, "12": 12.0, "-0.1": -0.1, "01": MISFIT, "1e5": MISFIT, "NaN": MISFIT, "0.1234567890123456": MISFIT}),
        (DOUBLE, BIGINT, {2**53: 2.0**53, 2**60: 2.0**60, 2**53 + 1: MISFIT, 2**63 - 1: MISFIT}),
        (DOUBLE, dec(22, 6), {Decimal("0.100000"): 0.1, Decimal("1234567890123456.789012"): MISFIT}),
        (DOUBLE, BOOL, {False: MISFIT}),
        (dec(5, 2), TEXT, {"1.5": Decimal("1.50"), "1.500": Decimal("1.50"), "1.555": MISFIT, "01": MISFIT, "1e2": MISFIT, "1000": MISFIT}),
        (dec(5, 2), BIGINT, {999: Decimal("999.00"), -999: Decimal("-999.00"), 1000: MISFIT}),
        (dec(5, 2), DOUBLE, {0.1: Decimal("0.10"), 1.255: MISFIT, 1e30: MISFIT, NAN: MISFIT}),
        (dec(5, 2), dec(9, 4), {Decimal("1.5000"): Decimal("1.50"), Decimal("1.5050"): MISFIT, Decimal("1000.0000"): MISFIT}),
        (dec(2, 2), DOUBLE, {0.05: Decimal("0.05"), 1.0: MISFIT}),
        (dec(10, 8), dec(8, 8), {Decimal("0.00000001"): Decimal("0.00000001")}),
        (dec(20, 0), pa.uint64(), {2**64 - 1: Decimal(2**64 - 1)}),
        (BOOL, TEXT, {"true": True, "false": False, "True": MISFIT, "1": MISFIT}),
        (BOOL, BIGINT, {1: MISFIT, 0: MISFIT}),
        (DATE, TEXT, {"2024-02-29": date(2024, 2, 29), "2024-02-30": MISFIT, "2024-2-1": MISFIT, "2024-01-01T00:00": MISFIT}),
        (DATE, TIMESTAMP, {datetime(2024, 1, 1): date(2024, 1, 1), datetime(2024, 1, 1, 5): MISFIT}),
        (TIME, TEXT, {"10:00": time(10), "23:59:59.5": time(23, 59, 59, 500000), "24:00:00": MISFIT, "10": MISFIT, "10:00Z": MISFIT}),
        (TIMESTAMP, TEXT, {"2024-01-31T10:00:00": datetime(2024, 1, 31, 10), "2024-01-31 10:00Z": MISFIT, "2024-01-31": MISFIT}),
        (TIMESTAMP, DATE, {date(2024, 1, 1): datetime(2024, 1, 1)}),
        (TIMESTAMP, TIMESTAMP_UTC, {datetime(2024, 1, 1, tzinfo=UTC): MISFIT}),
        (TIMESTAMP_UTC, TEXT, {"2024-01-31 10:00:00+02:00": datetime(2024, 1, 31, 8, tzinfo=UTC), "2024-01-31T10:00:00": MISFIT}),
        (TIMESTAMP_UTC, TEXT, {"2024-01-31T10:00:00.123456789Z": MISFIT, "2024-02-30T10:00:00Z": MISFIT}),
        (TIMESTAMP_UTC, DATE, {date(2024, 1, 1): MISFIT}),
        (BINARY, TEXT, {"ab": MISFIT}),
        (TEXT, BIGINT, {5: "5"}),
        (TEXT, BOOL, {True: "true"}),
        (TEXT, BINARY, {b"\x00\xff": "00ff"}),
        (TEXT, TIMESTAMP, {datetime(2024, 1, 31, 10): "2024-01-31 10:00:00"}),
        (JSON, TEXT, {'{"a": 1}': '{"a": 1}', "x": MISFIT, "NaN": MISFIT, r'"\u0000"': MISFIT, r'"\ud800"': MISFIT, r'"\ud83e\udd37"': r'"\ud83e\udd37"'}),
    ],
)
def test_a_value_fits_exactly_or_is_left_out_and_marked(kind: pa.DataType, source: pa.DataType, values: dict[Any, Any]) -> None:
    column = pa.array([*values, None], source)
    fitted, misfits = fit(column, kind)
    expected = [None if value is MISFIT else value for value in values.values()]
    assert fitted.type == kind
    assert [_to_utc(value) for value in fitted.to_pylist()] == [*expected, None]
    assert (misfits.to_pylist() if misfits is not None else [False] * len(column)) == [*(value is MISFIT for value in values.values()), False]


def test_a_moment_without_a_zone_is_one_in_utc_where_the_source_means_that() -> None:
    fitted, misfits = fit(pa.array(["2024-01-31T10:00:00", "2024-01-31T10:00:00+02:00", "soon"]), TIMESTAMP_UTC, naive_is_utc=True)
    assert [_to_utc(value) for value in fitted.to_pylist()] == [datetime(2024, 1, 31, 10, tzinfo=UTC), datetime(2024, 1, 31, 8, tzinfo=UTC), None]
    assert misfits.to_pylist() == [False, False, True]


def test_nanoseconds_are_not_cut_off() -> None:
    fitted, misfits = fit(pa.array([1_500, 2_000], pa.timestamp("ns")), TIMESTAMP)
    assert (fitted.to_pylist(), misfits.to_pylist()) == ([None, datetime(1970, 1, 1, 0, 0, 0, 2)], [True, False])


def test_one_misfit_among_very_many_is_found() -> None:
    values = ["2024-01-31"] * 300_000
    values[123_456] = "2024-02-30"
    fitted, misfits = fit(pa.chunked_array([values[:200_000], values[200_000:]]), DATE)
    assert misfits.index(True).as_py() == 123_456
    assert fitted.null_count == 1 and len(fitted) == 300_000


@pytest.mark.parametrize(("microseconds", "spelt"), [(2**62, "148108-07-06 14:00:27.387904000"), (-63_000_000_000_000_000, "-027-08-11 08:00:00.000000000")])
def test_a_moment_that_python_has_no_value_for_is_spelt_out(microseconds: int, spelt: str) -> None:
    assert arrow_types.to_text(pa.array([microseconds], TIMESTAMP)).to_pylist() == [spelt]


def test_no_nanosecond_and_no_zone_is_lost_in_a_text() -> None:
    moments = pa.array([1_700_000_000_123_456_789, 1_700_000_000_000_000_000], pa.timestamp("ns", tz="Europe/Berlin"))
    first, second = arrow_types.to_text(moments).to_pylist()
    assert first in ("2023-11-14 22:13:20.123456789+00:00", "2023-11-14 23:13:20.123456789+01:00")
    assert datetime.fromisoformat(second) == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


@pytest.mark.parametrize(
    ("array", "kind", "values"),
    [
        (pa.array(["a", "b", "a"]).dictionary_encode(), TEXT, ["a", "b", "a"]),
        (pa.array(["a"], pa.large_string()), TEXT, ["a"]),
        (pa.array(["a"], pa.string_view()), TEXT, ["a"]),
        (pa.array([b"ab"], pa.binary(2)), BINARY, [b"ab"]),
        (pa.array([7], pa.uint8()), BIGINT, [7]),
        (pa.array([0.5], pa.float32()), DOUBLE, [0.5]),
    ],
)
def test_a_wrapping_is_taken_off(array: pa.Array, kind: pa.DataType, values: list[Any]) -> None:
    assert (plain(array).type, plain(array).to_pylist()) == (kind, values)


@given(st.lists(st.integers(-(2**63), 2**63 - 1) | st.none(), max_size=20))
def test_whole_numbers_come_back_from_every_type_that_they_fit(values: list[int | None]) -> None:
    for kind in (DOUBLE, TEXT, pa.decimal128(19, 0), pa.decimal128(10, 2)):
        fitted, misfits = fit(pa.array(values, BIGINT), kind)
        for value, found, misfit in zip(values, fitted.to_pylist(), misfits.to_pylist() if misfits is not None else [False] * len(values), strict=True):
            assert found is None if misfit or value is None else int(found) == value


@given(st.lists(st.floats() | st.none(), max_size=20))
def test_doubles_come_back_from_every_type_that_they_fit(values: list[float | None]) -> None:
    for kind in (BIGINT, TEXT, pa.decimal128(38, 0), pa.decimal128(20, 10)):
        fitted, misfits = fit(pa.array(values, DOUBLE), kind)
        for value, found, misfit in zip(values, fitted.to_pylist(), misfits.to_pylist() if misfits is not None else [False] * len(values), strict=True):
            if misfit or value is None:
                assert found is None
            else:
                assert float(found) == pytest.approx(value, rel=0, abs=0, nan_ok=True)


def _to_utc(value: Any) -> Any:
    return value.astimezone(UTC) if isinstance(value, datetime) and value.tzinfo else value
