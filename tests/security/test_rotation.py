"""Stores go over to the newest key: readable throughout, whatever is killed, and nothing that does not belong there gets through."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from typer.testing import CliRunner

from fabric_assets import naming
from fabric_assets.cli.secrets import app
from fabric_assets.config.base import SecretRef
from fabric_assets.errors import SecretError
from fabric_assets.security.rotation import needs_older_keys, rotate_secrets
from fabric_assets.security.secrets import list_secrets, resolve_secret, write_secret
from fabric_assets.settings import Settings
from tests.conftest import ROOT
from tests.security.test_secrets import CANARY, get_message, put_tokens, read_store

NEWER = Fernet.generate_key().decode()


@pytest.fixture
def both(settings: Settings) -> Settings:
    """The store's key, and a newer one before it."""
    return replace(settings, secret_keys=(NEWER, *settings.secret_keys))


@pytest.fixture
def newest(settings: Settings) -> Settings:
    return replace(settings, secret_keys=(NEWER,))


def read(settings: Settings, tenant: str, name: str) -> str:
    return resolve_secret(SecretRef(secret=name), tenant=tenant, settings=settings)


def rotate(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setenv("FABRIC_SECRET_KEYS", ",".join(settings.secret_keys))
    monkeypatch.setenv("FABRIC_DATA_DIR", str(settings.data_dir))
    result = CliRunner().invoke(app, ["rotate", *arguments])
    assert CANARY not in result.output
    assert not any(key in result.output for key in settings.secret_keys)
    return result.exit_code, result.stdout, result.stderr


def test_everything_is_sealed_anew_and_the_older_key_may_go(settings: Settings, both: Settings, newest: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for tenant in ("acme", "gone_from_yaml"):
        write_secret(tenant, "a_key", CANARY, settings=settings)
        write_secret(tenant, "b_key", "other value", settings=settings)
    code, out, _ = rotate(both, monkeypatch, "--all")
    assert code == 0
    assert out == (
        "acme: 2 rotated, 0 already under the newest key, 0 failed\n"
        "gone_from_yaml: 2 rotated, 0 already under the newest key, 0 failed\n"
        "all secrets are sealed with the newest key: once every process has it, remove the 1 older from FABRIC_SECRET_KEYS;"
        " keep them with older backups\n"
    )
    assert [read(newest, tenant, "a_key") for tenant in ("acme", "gone_from_yaml")] == [CANARY, CANARY]
    assert read(newest, "acme", "b_key") == "other value"
    with pytest.raises(SecretError, match="cannot be opened"):
        read(settings, "acme", "a_key")
    before = read_store(newest, "acme")
    assert rotate(both, monkeypatch, "acme")[1].startswith("acme: 0 rotated, 2 already under the newest key, 0 failed\n")
    assert read_store(newest, "acme") == before


def test_part_of_the_store_keeps_the_older_key(settings: Settings, both: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for tenant in ("acme", "acme_eu", "globex"):
        write_secret(tenant, "key", CANARY, settings=settings)
    code, out, _ = rotate(both, monkeypatch, "acme*", "--json")
    assert code == 0
    assert json.loads(out) == {
        "tenants": [{"tenant": tenant, "rotated": ["key"], "current": [], "failed": {}} for tenant in ("acme", "acme_eu")],
        "older_keys_needed_by": ["globex"],
    }
    assert "keep the older keys in FABRIC_SECRET_KEYS: 1 tenants still need them or could not be read: globex" in rotate(both, monkeypatch, "acme")[1]
    assert needs_older_keys("globex", settings=both)


def test_what_cannot_be_opened_is_named_and_the_rest_goes_on(settings: Settings, both: Settings, newest: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cut", "foreign", "good", "moved"):
        write_secret("acme", name, CANARY, settings=settings)
    write_secret("globex", "key", CANARY, settings=settings)
    (settings.data_dir / "secrets" / "initech.json").write_text("{")
    tokens = read_store(settings, "acme")
    foreign = Fernet(Fernet.generate_key()).encrypt(json.dumps({"tenant": "acme", "name": "foreign", "value": CANARY}).encode()).decode()
    put_tokens(settings, "acme", {**tokens, "cut": tokens["cut"][:-30], "foreign": foreign, "moved": tokens["good"]})
    code, out, err = rotate(both, monkeypatch, "--all")
    assert code == 1
    assert "acme: 1 rotated, 0 already under the newest key, 3 failed" in out
    assert "globex: 1 rotated" in out
    assert "2 tenants still need them or could not be read: acme, initech" in out
    assert "secret cut cannot be opened with any of the FABRIC_SECRET_KEYS" in err
    assert "secret foreign cannot be opened" in err
    assert "secret moved holds a value that was sealed for another tenant or secret" in err
    assert "initech: the sealed store" in err and "is damaged" in err
    assert read(newest, "acme", "good") == CANARY
    after = read_store(settings, "acme")
    assert {name: after[name] for name in ("cut", "foreign", "moved")} == {"cut": tokens["cut"][:-30], "foreign": foreign, "moved": tokens["good"]}


@pytest.mark.parametrize(
    ("keys", "reason"), [((), "FABRIC_SECRET_KEYS, which is not set"), (("k3y-c4n4ry",), "key 1 of FABRIC_SECRET_KEYS is not a Fernet key")]
)
def test_without_a_good_key_nothing_is_touched(keys: tuple[str, ...], reason: str, settings: Settings) -> None:
    write_secret("acme", "key", CANARY, settings=settings)
    before = read_store(settings, "acme")
    with pytest.raises(SecretError, match=reason) as caught:
        rotate_secrets("acme", settings=replace(settings, secret_keys=keys))
    assert "k3y-c4n4ry" not in get_message(caught.value)
    assert read_store(settings, "acme") == before


def test_a_wrong_key_is_reported_and_changes_nothing(settings: Settings, newest: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    write_secret("acme", "key", CANARY, settings=settings)
    code, _, err = rotate(newest, monkeypatch, "acme")
    assert code == 1
    assert "acme, secret key cannot be opened with any of the FABRIC_SECRET_KEYS" in err
    assert read(settings, "acme", "key") == CANARY


def test_a_tenant_without_secrets_has_nothing_to_rotate(both: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rotate(both, monkeypatch, "acme")[0] == 0
    assert not (both.data_dir / "secrets").exists()
    code, _, _ = rotate(both, monkeypatch)
    assert code != 0


def test_a_secret_that_is_set_while_the_store_rotates_is_kept(settings: Settings, both: Settings) -> None:
    write_secret("acme", "key", CANARY, settings=settings)
    process = start(
        both, "from fabric_assets.security.secrets import write_secret\nfor n in range(40): write_secret('acme', f'new_{n}', 'x', settings=settings)"
    )
    while process.poll() is None:
        rotate_secrets("acme", settings=both)
    assert process.returncode == 0
    assert len(list_secrets("acme", settings=both)) == 41


# --- killed


def start(settings: Settings, program: str) -> subprocess.Popen[bytes]:
    head = (
        "import sys; from pathlib import Path; from fabric_assets.settings import Settings\n"
        "settings = Settings(Path(), Path(), Path(sys.argv[1]), secret_keys=tuple(sys.argv[2].split(',')))\n"
    )
    return subprocess.Popen([sys.executable, "-c", head + program, str(settings.data_dir), ",".join(settings.secret_keys)], cwd=ROOT)


KILLED_AT_THE_NTH = """
import os, signal
from fabric_assets.security import rotation
calls, n, where = 0, int(os.environ["N"]), os.environ["WHERE"]
real = getattr(os, where)
def kill(*arguments, **named):
    global calls
    calls += 1
    if calls == n: os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)
setattr(os, where, kill)
for tenant in sorted(path.stem for path in (settings.data_dir / "secrets").glob("*.json")): rotation.rotate_secrets(tenant, settings=settings)
"""


@pytest.mark.parametrize(("where", "n"), [("fsync", 1), ("fsync", 4), ("replace", 1), ("replace", 2), ("close", 2)])
def test_a_rotation_that_is_killed_at_a_write_leaves_every_value_readable_and_the_next_call_finishes(
    where: str, n: int, settings: Settings, both: Settings, newest: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [("acme", "a_key"), ("acme", "b_key"), ("globex", "key"), ("initech", "key")]
    for tenant, name in names:
        write_secret(tenant, name, f"{CANARY} of {tenant}/{name}", settings=settings)
    monkeypatch.setenv("N", str(n))
    monkeypatch.setenv("WHERE", where)
    assert start(both, KILLED_AT_THE_NTH).wait(30) == -signal.SIGKILL
    assert [read(both, *secret) for secret in names] == [f"{CANARY} of {tenant}/{name}" for tenant, name in names]
    assert [rotate_secrets(tenant, settings=both).failed for tenant in ("acme", "globex", "initech")] == [{}, {}, {}]
    assert [read(newest, *secret) for secret in names] == [f"{CANARY} of {tenant}/{name}" for tenant, name in names]


def test_the_command_killed_at_random_points_is_finished_by_the_next_call(
    settings: Settings, both: Settings, newest: Settings, settings_environ: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = [f"tenant_{number}" for number in range(150)]
    for tenant in tenants:
        write_secret(tenant, "key", f"{CANARY} of {tenant}", settings=settings)
    monkeypatch.setenv("FABRIC_SECRET_KEYS", ",".join(both.secret_keys))
    command = [str(Path(sys.executable).parent / "fabric"), "secrets", "rotate", "--all"]
    counts = []
    for wanted in (1, 40, 90):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while count_rotated(newest, tenants, at_least=wanted) < wanted and process.poll() is None:
                time.sleep(0.001)
            process.kill()
        counts.append(count_rotated(newest, tenants))
        assert [read(both, tenant, "key") for tenant in tenants] == [f"{CANARY} of {tenant}" for tenant in tenants]
    assert 0 < counts[0] < counts[1] < counts[2] < len(tenants)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "remove the 1 older from FABRIC_SECRET_KEYS" in done.stdout
    assert sum(f"{tenant}: 1 rotated" in done.stdout for tenant in tenants) == len(tenants) - counts[2]
    assert [read(newest, tenant, "key") for tenant in tenants] == [f"{CANARY} of {tenant}" for tenant in tenants]
    assert CANARY not in done.stdout + done.stderr
    # What the killed ones have left goes with the next writer of the tenant.
    for tenant in tenants:
        write_secret(tenant, "key", CANARY, settings=newest)
    assert not list((naming.sealed_secrets_file(settings.data_dir, "any").parent).glob("*.draft"))


def count_rotated(settings: Settings, tenants: list[str], *, at_least: int = 10**6) -> int:
    """In the order in which they are rotated."""
    fernet, count = Fernet(settings.secret_keys[0]), 0
    for tenant in sorted(tenants):
        try:
            fernet.decrypt(read_store(settings, tenant)["key"])
        except Exception:  # noqa: BLE001 - not yet
            return count
        count += 1
        if count >= at_least:
            break
    return count
