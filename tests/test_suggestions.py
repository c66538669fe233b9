"""The tail of an error message that names something unknown."""

import pytest

from fabric_assets.suggestions import LONGEST_NAME, suggest

MANY = [f"table_{number:02}" for number in range(25)]


@pytest.mark.parametrize(
    ("word", "known", "tail"),
    [
        ("ordres", ["orders", "items"], "; did you mean 'orders'? known: items, orders"),
        ("ORDERS", ["orders", "items"], "; did you mean 'orders'? known: items, orders"),
        ("customers", ["Customer", "items"], "; did you mean 'Customer'? known: Customer, items"),
        ("x", ["orders", "items", "items"], "; known: items, orders"),
        ("x", [], "; known: none"),
        ("table_24", [*MANY[:-1], "table_2"], "; did you mean 'table_2'? known: table_2, " + ", ".join(MANY[:19]) + " and 5 more"),
        ("zzz", MANY, "; known: " + ", ".join(MANY[:20]) + " and 5 more"),
        ("id", ["i" * 500], "; known: " + "i" * LONGEST_NAME),
    ],
)
def test_the_error_of_an_unknown_name_lists_the_nearest_and_the_known_names(word: str, known: list[str], tail: str) -> None:
    assert suggest(word, known) == tail
