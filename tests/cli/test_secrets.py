"""`fabric secrets` takes values from standard input or a prompt, and never shows them."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fabric_assets.cli.secrets import app
from fabric_assets.config.base import SecretRef
from fabric_assets.errors import ConfigurationError
from fabric_assets.offboarding.journal import open_journal
from fabric_assets.security.secrets import list_sealed_tenants, resolve_secret, write_secret
from fabric_assets.settings import Settings

CANARY = "c4n4ry-v4lu3"

pytestmark = pytest.mark.usefixtures("settings_environ")


def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    assert CANARY not in result.output + repr(result.exception)
    # `fabric` itself turns this error into a message and exit code 2.
    if isinstance(result.exception, ConfigurationError):
        return 2, result.stdout, f"{result.stderr}error: {result.exception}"
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("stdin", [CANARY, f"{CANARY}\n", f"{CANARY}\r\n"])
def test_a_value_from_standard_input_is_sealed(settings: Settings, stdin: str) -> None:
    code, out, err = run("set", "acme", "shop_url", stdin=stdin)
    assert (code, out) == (0, "")
    assert "sealed acme/shop_url" in err
    assert resolve_secret(SecretRef(secret="shop_url"), tenant="acme", settings=settings) == CANARY


def test_a_value_typed_at_the_prompt_is_sealed_and_not_echoed(settings: Settings) -> None:
    master, slave = pty.openpty()
    program = "from fabric_assets.cli.secrets import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", program, "set", "acme", "key"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True, close_fds=True
    )
    os.close(slave)
    screen = b""
    for prompt in (b"Value of acme/key:", b"Repeat"):
        while prompt not in screen:
            screen += os.read(master, 4096)
        while not screen.rstrip(b" ").endswith(b":"):
            screen += os.read(master, 4096)
        os.write(master, CANARY.encode() + b"\n")
    assert process.wait(timeout=30) == 0
    os.close(master)
    assert CANARY.encode() not in screen
    assert resolve_secret(SecretRef(secret="key"), tenant="acme", settings=settings) == CANARY


def test_a_value_on_the_command_line_is_refused() -> None:
    result = CliRunner().invoke(app, ["set", "acme", "shop_url", "something"])
    assert result.exit_code == 2


def test_a_tenant_without_a_file_is_noted(write_tenant: Callable[..., Path]) -> None:
    assert "there is no" in run("set", "acme", "key", stdin=CANARY)[2]
    file: Path = write_tenant("acme", {})
    assert str(file) not in run("set", "acme", "key", stdin=CANARY)[2]


def test_names_are_listed_and_values_are_not(settings: Settings) -> None:
    for tenant, name in [("acme", "b_key"), ("acme", "a_key"), ("acme_eu", "key"), ("globex", "key")]:
        write_secret(tenant, name, CANARY, settings=settings)
    assert run("list", "acme*") == (0, "acme\ta_key\nacme\tb_key\nacme_eu\tkey\n", "")
    assert json.loads(run("list", "--all", "--json")[1]) == [
        {"tenant": "acme", "secrets": ["a_key", "b_key"]},
        {"tenant": "acme_eu", "secrets": ["key"]},
        {"tenant": "globex", "secrets": ["key"]},
    ]
    assert run("list", "initech") == (0, "", "no sealed secrets\n")


@pytest.mark.parametrize(
    "arguments", [["list"], ["list", "acme", "--all"], ["list", "../acme"], ["set", "Acme", "key"], ["set", "acme", "Key"], ["remove", "acme", "key"]]
)
def test_wrong_usage_ends_in_exit_code_2(arguments: list[str]) -> None:
    code, out, err = run(*arguments, stdin=CANARY)
    assert (code, out) == (2, "")
    assert "error" in err.lower()


def test_an_empty_value_is_refused() -> None:
    code, _, err = run("set", "acme", "key", stdin="\n")
    assert code == 2
    assert "the value is empty" in err


def test_without_keys_the_remedy_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABRIC_SECRET_KEYS")
    code, _, err = run("set", "acme", "key", stdin=CANARY)
    assert code == 2
    assert "FABRIC_SECRET_KEYS" in err
    assert "make a key with: python3 -c" in err


def test_a_removed_secret_is_gone(settings: Settings) -> None:
    write_secret("acme", "key", CANARY, settings=settings)
    assert run("remove", "acme", "key")[0] == 0
    assert run("list", "acme", "--json")[1] == '[{"tenant": "acme", "secrets": []}]\n'


def test_an_offboarded_tenant_is_refused_by_name_and_left_out_of_all(settings: Settings, write_tenant: Callable[..., Path]) -> None:
    for tenant in ("acme", "globex", "initech"):
        write_tenant(tenant, {})
    open_journal("globex", settings.data_dir, {})
    code, _, err = run("set", "globex", "key", stdin=CANARY)
    assert code == 2
    assert "tenant globex is being offboarded, and takes no work" in err
    code, _, err = run("set", "--all", "key", stdin=CANARY)
    assert code == 0, err
    assert list_sealed_tenants(settings) == ("acme", "initech")


def test_the_store_of_a_tenant_that_is_being_offboarded_is_unchanged_and_the_others_are_rotated(settings: Settings) -> None:
    for tenant in ("acme", "globex"):
        write_secret(tenant, "key", CANARY, settings=settings)
    open_journal("acme", settings.data_dir, {})
    code, out, err = run("rotate", "--all")
    assert code == 1
    assert "tenant acme is being offboarded" in err
    assert "globex: 0 rotated, 1 already under the newest key, 0 failed" in out
