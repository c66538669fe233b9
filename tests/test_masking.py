"""A secret is masked in every spelling that drivers and servers print."""

import base64
import html
import json
import re
import subprocess
import sys
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import pytest
import requests

from fabric_assets.masking import mask, mask_values, redact
from tests.conftest import ROOT

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


def test_short_values_are_not_masked_within_words() -> None:
    assert redact("a table", ["a", ""]) == "a table"


@pytest.mark.parametrize(
    "spelling",
    [
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        json.dumps(SECRET).replace("/", "\\/")[1:-1],
        re.sub("%..", lambda found: found[0].lower(), quote(SECRET, safe="")),
        html.escape(SECRET),
        SECRET.replace("'", "''"),
        SECRET.replace("\\", "\\\\").replace("'", "\\'"),
    ],
)
def test_spellings_of_json_markup_and_connection_strings_are_masked(spelling: str) -> None:
    assert redact(f"<{spelling}>", [SECRET]) == "<***>"


def _escape(value: str, signs: str, form: str) -> str:
    return "".join(form.format(ord(sign)) if sign in signs else sign for sign in value)


ODD = "p+a&b<c>d'e`f=gé\U0001f600h\u20aci"


@pytest.mark.parametrize(
    "spelling",
    [
        # .NET, Go, Gson, PHP
        _escape(ODD, "+&<>'`", "\\u{:04X}").replace("é", "\\u00E9").replace("\U0001f600", "\\uD83D\\uDE00").replace("\u20ac", "\\u20AC"),
        _escape(ODD, "&<>", "\\u{:04x}"),
        _escape(ODD, "&<>='", "\\u{:04x}"),
        _escape(ODD, "&<>'", "\\u{:04X}").replace("é", "\\u00e9").replace("\U0001f600", "\\ud83d\\ude00").replace("\u20ac", "\\u20ac"),
        json.dumps(json.dumps(ODD))[3:-3],
        _escape(ODD, "+&<>'`=é\u20ac", "&#{};"),
        _escape(ODD, "+&<>'`=é\u20ac", "&#x{:x};"),
        _escape(ODD, "+&<>'`=é\u20ac", "&#x{:04X};"),
        html.escape(html.escape(ODD)),
        ODD.replace("é", "&eacute;").replace("\u20ac", "&euro;").replace("'", "&apos;").replace("+", "&plus;"),
        repr(ODD.encode())[2:-1],
        repr(ODD.encode() + b'"')[2:-2],
        ascii(ODD)[1:-1],
        requests.utils.requote_uri(ODD),
        quote(quote(ODD, safe=""), safe=""),
    ],
)  # fmt: skip
def test_spellings_of_other_languages_and_of_each_within_another_are_masked(spelling: str) -> None:
    assert redact(f"<{spelling}>", [ODD]) == "<***>"


@pytest.mark.parametrize("secret", ["ends-with'", 'ends-with"', 'two""', "'begins", 'back\\"', "back\\'s", 'a\\""b'])
def test_a_quote_of_the_secret_is_told_from_the_one_that_closes_the_text(secret: str) -> None:
    assert redact(json.dumps({"said": secret}), [secret]).startswith('{"said": "***')
    if not secret.startswith("back\\"):
        assert redact(json.dumps({"said": secret}), [secret]) == '{"said": "***"}'
    assert redact(f"<{json.dumps(json.dumps(secret))[3:-3]}>", [secret]) == "<***>"
    assert redact("<" + secret.replace("'", "''").replace('"', '""') + ">", [secret]) == "<***>"


@pytest.mark.parametrize("secret", ["two  spaces", "a\nline \tand more", " p w\n\nx ", "back\\\nslash"])
@pytest.mark.parametrize("spell", [str, quote, quote_plus, lambda text: json.dumps(text)[1:-1], lambda text: repr(text)[1:-1]])
def test_a_value_is_masked_after_its_whitespace_was_collapsed(secret: str, spell: Callable[[str], str]) -> None:
    assert redact(" ".join(f"<{spell(secret)}> refused".split()), [secret]).replace(" ", "") == "<***>refused"


@pytest.mark.parametrize("escaped", ["sec%2bret%41%7e%2F", "sec%2BretA~%2F", "sec%252bret%2541%257e%252F"])
def test_a_value_with_escapes_of_its_own_is_masked_as_clients_rewrite_it(escaped: str) -> None:
    assert redact(f"at https://host/{escaped}?x", ["sec%2bret%41%7e%2F"]) == "at https://host/***?x"


@pytest.mark.parametrize("before", ["", "user:", "a-longer-user:", "x" * 61])
@pytest.mark.parametrize("size", [20, 57, 200])
def test_base64_in_lines_is_masked(before: str, size: int) -> None:
    secret = "".join(chr(33 + number * 7 % 90) for number in range(size))
    encoded = base64.encodebytes(f"{before}{secret} and more of it, up to another line".encode()).decode()
    for text in (encoded, encoded.replace("\n", "\r\n"), repr(encoded), json.dumps(encoded), "\n  ".join(encoded.split("\n"))):
        masked = redact(text, [secret])
        assert "***" in masked
        rest = "".join(masked.replace("\\r", "").replace("\\n", "").split())
        kept = "".join(part for piece in re.findall("[A-Za-z0-9+/]{8,}", rest) for part in (base64.b64decode(piece[: len(piece) // 4 * 4]).decode("latin-1"),))
        assert secret[2:-2] not in kept


def test_lines_of_base64_that_hold_no_secret_stay_as_they_are() -> None:
    text = base64.encodebytes(bytes(range(256))).decode()
    assert redact(text, ["longer-s3cret-value"]) == text


@pytest.mark.parametrize("secret", ["    ", "\n\n\n\n", "a    ", "+ + +"])
def test_whitespace_is_not_taken_for_a_secret_that_has_much_of_it(secret: str) -> None:
    assert redact("a text of some words: a  b+c", [secret]) == "a text of some words: a  b+c"


@pytest.mark.parametrize(
    "secret",
    [
        '\\"' * 30 + "x",
        "\\/" * 30 + "x",
        "\\ " * 30 + "x",
        "\\n" * 30 + "x",
        "a'\"" * 30 + "x",
        "\\" * 60 + "x",
        "%25" * 40 + "x",
        "&amp;" * 30 + "x",
        " + " * 30 + "x",
        "''" * 30 + "x",
        "a %20" * 30 + "x",
    ],
)
@pytest.mark.timeout(60)  # A pattern that tries each way to part the escapes would take years.
def test_a_secret_of_escapes_is_searched_quickly(secret: str) -> None:
    for text in (secret[:-1] + "y x", json.dumps(secret)[:-2] + "y x", repr(json.dumps(secret * 20))[:-20], quote(quote(secret))[:-1] + "y x"):
        redact(text * 5, [secret])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("LINE 1: ... where (id = 'S3cretPgP... ^", "LINE 1: ... where (id = '***... ^"),
        ("LINE 1: ...tPgPw77') and n > 1 ^", "LINE 1: ...***') and n > 1 ^"),
        ("begins S3cr...", "begins ***..."),
        ("S3cr S3cret...gPw77 and gPw77", "S3cr ***...*** and gPw77"),
        ("S3c... is too little, and so is ...w77", "S3c... is too little, and so is ...w77"),
        ("S3cretXgP... is another word", "S3cretXgP... is another word"),
    ],
)
def test_the_rest_of_a_cut_off_secret_is_masked(text: str, masked: str) -> None:
    assert redact(text, ["S3cretPgPw77"]) == masked


@pytest.mark.timeout(60)
@pytest.mark.parametrize("filler", ["...", "abcd...", "aaaa...", "a", "aaaaaaaa..."])
def test_a_long_text_is_searched_quickly_for_cut_off_values(filler: str) -> None:
    text = filler * (200_000 // len(filler))
    assert "b" * 300 not in redact(text, ["a" * 3_000 + "b" * 3_000, *(f"abc{number:04}" for number in range(200))])


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("GET /v1/rows?api_key=abc&page=2", "GET /v1/rows?api_key=***&page=2"),
        ("https://host/a?X-Amz-Signature=0f3&X-Amz-Date=1", "https://host/a?X-Amz-Signature=***&X-Amz-Date=1"),
        ("?access_token=a%20b#top", "?access_token=***#top"),
        ("?key=1&monkey=2&sig=3", "?key=***&monkey=2&sig=***"),
        ("connection to 'host=h user=u password=abc dbname=d' failed", "connection to 'host=h user=u password=*** dbname=d' failed"),
        (r"password='it\'s' sslpassword = x", "password=*** sslpassword = ***"),
        ("Server=h;Uid=u;Pwd=abc;Database=d", "Server=h;Uid=u;Pwd=***;Database=d"),
        ("Authorization: Bearer abc.def, next", "Authorization: Bearer ***, next"),
        ("{'Authorization': 'Basic dTpw'}", "{'Authorization': 'Basic ***'}"),
        ("fe_sendauth: no password supplied", "fe_sendauth: no password supplied"),
        ("write it as postgresql://user:password@host:port/database", "write it as postgresql://user:password@host:port/database"),
        ("the token of its auth", "the token of its auth"),
    ],
)
def test_an_unknown_text_in_the_form_of_a_credential_is_masked(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


def test_the_form_of_a_credential_is_no_secret_in_a_customers_row() -> None:
    assert mask_values("https://shop.example/?token=visitor password=x") == "https://shop.example/?token=visitor password=x"


@pytest.mark.parametrize(
    ("url", "text", "masked"),
    [
        ("postgresql://u:half@other@db/x", 'host "other@db" is unknown', 'host "***@db" is unknown'),
        ("postgresql://u:left/right@db/x", "port right is none", "port *** is none"),
        ("mysql://u@db/x?password=hunter2", "hunter2", "***"),
        ("https://tok3n@api.example/", "tok3n refused", "*** refused"),
        ("postgresql://postgres:postgres@db/x", "the destination (postgres) of user postgres", "the destination (postgres) of user postgres"),
        ("postgresql://me@db/x", "user me of db", "user me of db"),
        ("postgresql://u:p:w:d@[::1]:5432/x", "p:w:d", "***"),
        ("http://[bad", "http://[bad", "***"),
    ],
)
def test_the_parts_of_a_url_that_are_secret_are_masked_alone(url: str, text: str, masked: str) -> None:
    assert redact(text, [url]) == masked


def test_each_long_line_of_a_key_is_masked_and_short_ones_stay() -> None:
    key = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nshort\n-----END PRIVATE KEY-----\n"
    assert redact("line MIIEvQIBADANBgkqhkiG9w0B, short", [key]) == "line ***, short"


def test_the_number_of_remembered_values_is_bounded_and_the_newest_stay() -> None:
    """In a separate process, since the values that this process remembers belong to the other tests too."""
    program = (
        "from fabric_assets import masking\n"
        "for number in range(3000): masking.remember(f'value-{number:06}'); masking.remember('kept-in-use')\n"
        "print(masking.count_remembered(), masking.mask('value-002999 value-000001 kept-in-use'))"
    )
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout
    assert shown == "1000 *** value-000001 ***\n"


def test_threads_may_remember_and_mask_at_once() -> None:
    program = (
        "import threading\nfrom concurrent.futures import ThreadPoolExecutor\nfrom fabric_assets import masking\n"
        "def work(n):\n"
        "    value = f'secret-of-{n:05}'\n"
        "    masking.remember(value)\n"
        "    return masking.mask(f'<{value}>')\n"
        "with ThreadPoolExecutor(16) as pool: print(set(pool.map(work, range(900))))"
    )
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60).stdout
    assert shown == "{'<***>'}\n"


@pytest.mark.parametrize("filler", ["a", "a.", "a-b_", "://", "&", "?", "=", "password", "x=", "'", "token"])
@pytest.mark.timeout(60)  # A pattern that starts anew at each letter would take an hour.
def test_a_long_text_is_searched_quickly(filler: str) -> None:
    text = filler * (200_000 // len(filler))
    assert mask(text) == text
