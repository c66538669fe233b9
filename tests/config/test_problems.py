"""Snippets quote the YAML around a mistake; a secret on the same line, or on the line itself, must not be among what they quote."""

import pytest

from fabric_assets.config.problems import get_snippet, is_secret_key

SECRET = "hunter2"


def get_line(text: str, line: int, column: int) -> str:
    return get_snippet(text, (line, column)).splitlines()[0].strip()


@pytest.mark.parametrize(
    ("text", "line", "shown"),
    [
        ("url: hunter2", 1, "url: ***"),
        ("a: {password: hunter2, typo: 1}", 1, "a: {password: ***, typo: 1}"),
        ('a: {"password": "hunter2, }", typo: 1}', 1, 'a: {"password": ***, typo: 1}'),
        ("pasword: hunter2", 1, "pasword: ***"),
        ("apiKey: hunter2", 1, "apiKey: ***"),
        ("X-Api-Key: hunter2", 1, "X-Api-Key: ***"),
        ("db-password: hunter2", 1, "db-password: ***"),
        ("where: postgresql://etl:hunter2@db/x", 1, "where: postgresql://***@db/x"),
        ("base_url: https://etl:hunter2@api.example", 1, "base_url: https://***@api.example"),
        ("token:\n  hunter2", 2, "***"),
        ("token: |\n  first\n  hunter2", 3, "***"),
        ("token: 'first\n  hunter2'", 2, "***"),
        ("url: {vault: hunter2}", 1, "url: {vault: ***}"),
        ("url: {env: 'hunter2!'}", 1, "url: {env: ***}"),
        ("tokens: [hunter2]", 1, "tokens: [***]"),
        ("token: [hunter2]", 1, "token: [***]"),
        # files that cannot be parsed
        ("url: hunter2: x", 1, "url: ***"),
        ("token:\n    hunter2: [", 2, "***"),
        ("a: [1, token: hunter2", 1, "a: [1, token: ***"),
        ("a: 'open\npassword: hunter2", 2, "password: ***"),
        # nothing to hide
        ("primary_key: id", 1, "primary_key: id"),
        ("primay_key: id", 1, "primay_key: id"),
        ("base_url: https://api.example", 1, "base_url: https://api.example"),
        ("url: {env: WAREHOUSE_URL}", 1, "url: {env: WAREHOUSE_URL}"),
    ],
)
def test_secrets_are_masked_at_any_position(text: str, line: int, shown: str) -> None:
    assert get_line(text, line, 1) == shown
    assert SECRET not in get_snippet(text, (line, 1))


def test_the_caret_moves_when_a_mask_shortens_the_line() -> None:
    text = "a: {password: a very long password, typo: 1}"
    quoted, caret = get_snippet(text, (1, text.index("typo") + 1)).splitlines()
    assert quoted[caret.index("^") :].startswith("typo: 1}")


def test_a_long_line_is_quoted_around_the_column() -> None:
    text = f"x: [{', '.join(f'item{number}' for number in range(200))}]"
    quoted, caret = get_snippet(text, (1, text.index("item150") + 1)).splitlines()
    assert len(quoted) < 180
    assert quoted[caret.index("^") :].startswith("item150, ")
    assert quoted.strip().startswith("...")
    assert quoted.endswith("...")


def test_a_value_that_is_hidden_by_name_is_masked_though_its_key_sounds_harmless() -> None:
    assert get_snippet("name: hunter2", (1, 7), hide=True).splitlines()[0].strip() == "name: ***"


def test_characters_that_control_terminals_are_replaced() -> None:
    assert get_line('name: "\u202ex"', 1, 1) == 'name: "�x"'


def test_a_line_outside_of_the_file_has_no_snippet() -> None:
    assert get_snippet("a: 1", (5, 1)) == ""


@pytest.mark.parametrize("key", ["url", "token", "Password", "client_secret", "tokn", "passwrd", "warehouse_url", "Authorization", "key"])
def test_keys_that_sound_like_secrets(key: str) -> None:
    assert is_secret_key(key)


@pytest.mark.parametrize("key", ["primary_key", "base_url", "table", "cursor", "stream", "orders", "tenant", "schema", "columns"])
def test_keys_that_do_not_sound_like_secrets(key: str) -> None:
    assert not is_secret_key(key)
