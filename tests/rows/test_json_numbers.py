"""A JSON number becomes a double only if no digit is lost; such numbers are also found in a whole file without parsing it."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric_assets.rows.json_numbers import has_long_number, quote_long_numbers, read_number

NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
ROWS = st.dictionaries(st.text(alphabet='a"\\,: 0123456789.', max_size=20), st.sampled_from(["n", "t", "l"]), max_size=4)


@settings(max_examples=300, deadline=None)
@given(NUMBERS)
def test_no_digit_is_lost(text: str) -> None:
    assert Decimal(str(json.loads(text, parse_float=read_number))) == Decimal(text)


@settings(max_examples=300, deadline=None)
@given(ROWS, NUMBERS, st.text(alphabet='a"\\,: 0123456789.', max_size=30))
def test_only_the_long_numbers_of_a_line_become_texts(kinds: dict[str, str], number: str, text: str) -> None:
    values = {"n": number, "t": json.dumps(text), "l": f"[{number},{json.dumps(text)} , {number}]"}
    line = "{" + ", ".join(f"{json.dumps(key)}: {values[kind]}" for key, kind in kinds.items()) + "}\n"
    assert json.loads(quote_long_numbers(line)) == json.loads(line, parse_float=read_number)


@pytest.mark.parametrize("text", ["0.30000000000000004", "1.50", "1e5", "123456789012345.6", "0.1000000000000000000000", "1e400", "1" + "0" * 400 + ".5"])
def test_a_number_that_a_double_holds_and_a_number_beyond_all_doubles_are_left_as_they_are(text: str) -> None:
    assert read_number(text) == float(text)


TINY = ["1e-400", "-1E-400", "1.2345e-320", "2.5e-1000", "1e-0324"]


@pytest.mark.parametrize("text", TINY)
def test_a_number_too_small_for_a_double_stays_its_text(text: str) -> None:
    assert read_number(text) == text
    assert json.loads(quote_long_numbers(f'{{"a": {text}, "b": [{text}]}}')) == {"a": text, "b": [text]}


@pytest.mark.parametrize("text", ["0e-400", "-0.0e-999", "5e-324", "1e-300", "2.5e-7", "1E-05"])
def test_a_small_number_that_a_double_holds_becomes_a_double(text: str) -> None:
    assert read_number(text) == float(text)


def test_a_part_of_a_uuid_is_not_read_as_a_number() -> None:
    assert not has_long_number(b'{"id": "6ba7b81e-9dad-11d1-80b4-00c04fd430c8", "b": "a1e-4123-8f"}')


def test_an_exponent_beyond_all_decimals_raises_no_error() -> None:
    assert read_number("1e-99999999999999999999") == "1e-99999999999999999999"


@pytest.mark.parametrize(
    "line", ['{"a": "' + "." * 100_000 + '"}', '{"a": "1.2.3.4.5.6.7.8.9.10.11"}', '{"a": 12345678901234567890}', '{"a": "0.1234567890123456789"}']
)
def test_a_text_that_only_looks_like_a_long_number_is_left_alone(line: str) -> None:
    assert not has_long_number(line.encode())
