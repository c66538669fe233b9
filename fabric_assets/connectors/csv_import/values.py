"""A cell's text -> its value, or the reason why it is not valid: the rules for a single cell.

If a text has two possible readings and no declaration decides between them, the cell is bad. `csv_import/columns.py` reads plain
spellings a column at a time, and uses these functions for all others, once per distinct text.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from zoneinfo import ZoneInfo

from fabric_assets.masking import mask_values

LONGEST = 100
_INT64 = 2**63

_TRUE = frozenset({"true", "t", "yes", "y", "on", "1", "wahr", "ja", "vrai", "oui"})
_FALSE = frozenset({"false", "f", "no", "n", "off", "0", "falsch", "nein", "faux", "non"})

_SPACES = "\u0020\u00a0\u202f\u2009\u2007"
_SIGN = r"[+\-\u2212\u2013]"
_CURRENCY = r"[A-Z]{3}|US\$|[$€£¥₹₽₺₩₪₫₴₦₱฿]|kr\.?|zł|Fr\.?"
_NUMBER = re.compile(
    rf"(?P<sign>{_SIGN})?[{_SPACES}]*(?P<before>{_CURRENCY})?[{_SPACES}]*(?P<inner>{_SIGN})?(?P<body>[0-9.,'\u2019{_SPACES}]*[0-9.,](?:[eE][+-]?[0-9]{{1,3}})?)"
    # ERP systems write the minus behind the number.
    rf"(?P<trail>{_SIGN})?[{_SPACES}]*(?P<after>{_CURRENCY})?(?P<percent>[{_SPACES}]*%)?"
)
# Groups of two digits above the last three, separated by commas: 12,34,567.89.
_INDIAN = {".": r"[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}", ",": r"(?!)"}
_BODIES = {
    mark: re.compile(
        rf"(?:(?P<plain>[0-9]+)|(?P<grouped>[1-9][0-9]{{0,2}}(?P<by>[{other}'\u2019{_SPACES}])[0-9]{{3}}(?:(?P=by)[0-9]{{3}})*)|(?P<indian>{_INDIAN[mark]}))?(?:{re.escape(mark)}(?P<fraction>[0-9]*))?(?P<exponent>[eE][+-]?[0-9]{{1,3}})?"
    )
    for mark, other in ((".", ","), (",", "."))
}
_YEAR_FIRST = r"(?P<y>[0-9]{4})(?P<s>[-/.])(?P<m>[0-9]{1,2})(?P=s)(?P<d>[0-9]{1,2})"
_YEAR_LAST = r"(?P<a>[0-9]{1,2})(?P<t>[-/.])(?P<b>[0-9]{1,2})(?P=t)(?P<z>[0-9]{4})"
_CLOCK = r"(?P<hour>[0-9]{2})(?::(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]{1,6}))?)?)?"
_MOMENT = re.compile(rf"(?:{_YEAR_FIRST}|{_YEAR_LAST})(?:[ T]{_CLOCK}[ ]?(?P<offset>Z|[+-][0-9]{{2}}:?[0-9]{{2}})?)?")


class BadCell(ValueError):
    """A text that is not a valid value of its column."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Number:
    """A number as a cell writes it.

    Args:
        value: of a percentage, a hundredth of the number that is written.
        currency: the sign as written; empty without one.
    """

    value: Decimal
    percent: bool = False
    currency: str = ""


def quote(text: str) -> str:
    """A cell's text for a message. A long text is masked before it is cut, because half of a secret would not be recognised."""
    return repr(text if len(text) <= 60 else mask_values(text)[:60] + "…")


# --- numbers


def is_number(text: str, mark: str) -> bool:
    """Whether a text is a number by this decimal mark."""
    try:
        parse_number(text, mark)
    except BadCell:
        return False
    return True


def parse_number(text: str, mark: str | None) -> Number:
    """Read a number.

    Args:
        mark: the decimal mark; None if it is not known. A text whose value depends on the mark is then bad.

    Raises:
        BadCell: it is not a number, or has several meanings.
    """
    text = text.strip()
    negative = len(text) > 2 and text[0] == "(" and text[-1] == ")"
    match = _NUMBER.fullmatch(text[1:-1] if negative else text) if len(text) <= LONGEST else None
    if (
        match is None
        or (match["before"] and match["after"])
        or (match["inner"] and (match["sign"] or not match["before"]))
        or (negative and match["sign"])
        or (match["trail"] and (negative or match["sign"] or match["inner"]))
    ):
        raise BadCell("bad_number", f"{quote(text)} is not a number")
    if match["trail"] and match["body"].rstrip()[-1] in ".,":
        # As a price 5,- is 5; as a number of an ERP system it is -5.
        raise BadCell("ambiguous_number", f"{quote(text)} may be positive or negative: write the digits after the mark, or the sign before the number")
    readings = {reading for each in ([mark] if mark else [".", ","]) if (reading := _read_body(match["body"], each)) is not None}
    if not readings:
        hint = f" with the decimal mark {mark!r}" if mark else ""
        raise BadCell("bad_number", f"{quote(text)} is not a number{hint}")
    if len(readings) > 1:
        raise BadCell("ambiguous_number", f"{quote(text)} may be {min(readings)} or {max(readings)}: declare the stream's decimal")
    value = readings.pop()
    if negative or (match["sign"] or match["inner"] or match["trail"] or "+") != "+":
        value = value.copy_negate()
    percent = match["percent"] is not None
    return Number(_divide_by_hundred(value) if percent else value, percent, match["before"] or match["after"] or "")


def _read_body(body: str, mark: str) -> Decimal | None:
    match = _BODIES[mark].fullmatch(body)
    if match is None:
        return None
    grouped = match["grouped"] or match["indian"] or ""
    whole, fraction = match["plain"] or re.sub("[^0-9]", "", grouped), match["fraction"] or ""
    if (not whole and not fraction) or (grouped and match["exponent"]):
        return None
    return Decimal(f"{whole or '0'}.{fraction or '0'}{match['exponent'] or ''}")


def _divide_by_hundred(value: Decimal) -> Decimal:
    # Decimal's own arithmetic rounds to 28 digits.
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    return Decimal((sign, digits, exponent - 2))


def as_bigint(number: Decimal) -> int:
    if abs(number) >= _INT64 * 2:
        raise BadCell("out_of_range", f"{number:.6g} does not fit a bigint")
    if number != int(number):
        raise BadCell("not_whole", f"{number} is not a whole number")
    if not -_INT64 <= number < _INT64:
        raise BadCell("out_of_range", f"{number} does not fit a bigint")
    return int(number)


def as_decimal(number: Decimal, scale: int) -> Decimal:
    if not number:
        return Decimal((0, (0,), -scale))
    if number.adjusted() >= 38 - scale:
        raise BadCell("out_of_range", f"{number:.6g} does not fit a decimal of {38 - scale} digits before the decimal mark")
    sign, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if exponent < -scale and any(digits[exponent + scale :]):
        raise BadCell("too_precise", f"{number:.20g} has more than {scale} digits after the decimal mark")
    shift = exponent + scale
    digits = digits + (0,) * shift if shift >= 0 else digits[:shift] or (0,)
    return Decimal((sign, digits, -scale))


def as_double(number: Decimal) -> float:
    value = float(number)
    if value in (float("inf"), float("-inf")):
        raise BadCell("out_of_range", f"{number:.6g} does not fit a double")
    return value


# --- the other types


def parse_bool(text: str) -> bool:
    """Read yes or no, true or false, 1 or 0, also as a German or French spreadsheet writes them."""
    word = text.strip().casefold()
    if word not in _TRUE and word not in _FALSE:
        raise BadCell("bad_bool", f"{quote(text)} is neither true nor false")
    return word in _TRUE


def parse_moment(text: str, formats: Sequence[str], *, kind: str) -> datetime:
    """Read a date or timestamp: in one of the formats, or without formats in any unambiguous spelling.

    Args:
        kind: "date" or "timestamp".

    Raises:
        BadCell: it is not a date or timestamp, or has several meanings.
    """
    text = text.strip()
    readings = _read_formats(text, formats) if formats else _read_any(text)
    if not readings:
        expected = f"does not match the {kind} format{'s' if len(formats) > 1 else ''} {', '.join(formats)}" if formats else f"is not a {kind}"
        raise BadCell(f"bad_{kind}", f"{quote(text)} {expected}")
    if len(readings) > 1:
        several = " or ".join(sorted(each.date().isoformat() for each in readings))
        raise BadCell(f"ambiguous_{kind}", f"{quote(text)} may be {several}: declare the column's formats")
    return readings.pop()


def _read_formats(text: str, formats: Sequence[str]) -> set[datetime]:
    readings = set()
    if len(text) > LONGEST or not text.isascii():
        return set()
    for each in formats:
        try:
            readings.add(datetime.strptime(text, each))  # noqa: DTZ007
        except ValueError:
            continue
    return readings


def _read_any(text: str) -> set[datetime]:
    match = _MOMENT.fullmatch(text)
    if match is None:
        return set()
    orders = [(match["y"], match["m"], match["d"])] if match["y"] else [(match["z"], match["a"], match["b"]), (match["z"], match["b"], match["a"])]
    clock = time(0)
    readings = set()
    for year, month, day in orders:
        try:
            if match["hour"]:
                clock = time(int(match["hour"]), int(match["minute"] or 0), int(match["second"] or 0), int((match["fraction"] or "0").ljust(6, "0")))
            moment = datetime.combine(date(int(year), int(month), int(day)), clock)
            readings.add(datetime.fromisoformat(moment.isoformat() + match["offset"]) if match["offset"] else moment)
        except ValueError:
            continue
    return readings


def as_date(moment: datetime, text: str) -> date:
    if moment.tzinfo or moment.time() != time(0):
        raise BadCell("bad_date", f"{quote(text)} has a time of day, but the column is a date")
    return moment.date()


def as_timestamp(moment: datetime, text: str, zone: str | None) -> datetime:
    """A moment in UTC if the column has a time zone, else unchanged."""
    if zone is None:
        if moment.tzinfo:
            raise BadCell("bad_timestamp", f"{quote(text)} has an offset: declare the column's timezone")
        return moment
    try:
        if moment.tzinfo:
            return moment.astimezone(UTC)
        local = moment.replace(tzinfo=ZoneInfo(zone))
        if local.utcoffset() != local.replace(fold=1).utcoffset():
            raise BadCell("ambiguous_timestamp", f"{quote(text)} is within an hour that occurs twice or not at all in {zone}")
        return local.astimezone(UTC)
    except OverflowError:
        raise BadCell("out_of_range", f"{quote(text)} is beyond the years 1 to 9999") from None
