"""A secret is masked in every spelling that drivers and servers print."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from fabric_assets.security.redaction import redact

SECRET = "p@ss/w0rd +ü'\"?"


@pytest.mark.parametrize(
    "spelling",
    [
        SECRET,
        quote(SECRET, safe=""),
        quote(SECRET),
        quote_plus(SECRET),
        json.dumps(SECRET)[1:-1],
        repr(SECRET)[1:-1],
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_each_spelling_is_masked_where_it_stands(spelling: str) -> None:
    text = redact(f"refused: {spelling} at 12:00", [SECRET])
    assert spelling not in text
    assert text.startswith("refused: ***")
    assert text.endswith(" at 12:00")


@pytest.mark.parametrize("user", ["a", "ab", "abc", "fabric"])
def test_the_password_of_a_basic_header_is_masked_at_each_alignment(user: str) -> None:
    header = base64.b64encode(f"{user}:longer-s3cret-value".encode()).decode()
    masked = redact(f"Authorization: Basic {header}", ["longer-s3cret-value"])
    assert "***" in masked
    rest = masked.removeprefix("Authorization: Basic ").split("***")[0]
    assert b"s3cret" not in base64.b64decode(rest + "=" * (-len(rest) % 4))


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("postgresql://u:pw@db:5432/x refused", "postgresql://***@db:5432/x refused"),
        ("mysql+pymysql://u:p@w@db/x", "mysql+pymysql://***@db/x"),
        ("at https://token@api.example/a?b=c@d", "at https://***@api.example/a?b=c@d"),
        ("see https://api.example/a@b", "see https://api.example/a@b"),
        ("mail me@example.com", "mail me@example.com"),
    ],
)
def test_the_userinfo_of_any_url_is_masked(text: str, masked: str) -> None:
    assert redact(text) == masked


def test_the_password_inside_of_a_secret_url_is_masked_alone() -> None:
    url = "postgresql://u:hunt%20er2@db/x"
    assert redact('password "hunt er2" refused; given hunt%20er2', [url]) == 'password "***" refused; given ***'


def test_short_values_do_not_tear_holes_into_words() -> None:
    assert redact("a table", ["a", ""]) == "a table"
