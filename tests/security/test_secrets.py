"""References become values, sealed values open only where they belong, and no message holds one."""

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from fabric_assets import naming
from fabric_assets.config.base import SecretRef
from fabric_assets.errors import ConfigurationError, FabricError, SecretError
from fabric_assets.offboarding.journal import open_journal
from fabric_assets.security.secrets import MAXIMUM_BYTES, list_sealed_tenants, list_secrets, remove_secret, resolve_secret, write_secret
from fabric_assets.security.token_files import locked
from fabric_assets.settings import Settings
from tests.faults.processes import wait_until

CANARY = "c4n4ry-v4lu3"


def get_message(error: BaseException | None) -> str:
    """All that a log would show of an exception: its text and its causes'."""
    texts = []
    while error is not None:
        texts.append(f"{error} {error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(texts)


def read_store(settings: Settings, tenant: str) -> dict[str, str]:
    return json.loads(naming.sealed_secrets_file(settings.data_dir, tenant).read_text())["secrets"]


def put_tokens(settings: Settings, tenant: str, tokens: dict[str, str]) -> None:
    naming.sealed_secrets_file(settings.data_dir, tenant).write_text(json.dumps({"version": 1, "secrets": tokens}))


# --- environment


def test_a_variable_is_read(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_TOKEN", CANARY)
    assert resolve_secret(SecretRef(env="ACME_TOKEN"), tenant="acme", settings=settings) == CANARY


@pytest.mark.parametrize(
    ("value", "state", "remedy"),
    [
        (None, "is not set", "set ACME_TOKEN where the load runs, or add it to .env"),
        ("", "is empty", "or unset it there: a variable that is set, even empty, wins"),
    ],
)
def test_a_missing_variable_is_named_with_its_remedy(settings: Settings, monkeypatch: pytest.MonkeyPatch, value: str | None, state: str, remedy: str) -> None:
    monkeypatch.delenv("ACME_TOKEN", raising=False)
    if value is not None:
        monkeypatch.setenv("ACME_TOKEN", value)
    with pytest.raises(SecretError) as caught:
        resolve_secret(SecretRef(env="ACME_TOKEN"), tenant="acme", settings=settings)
    assert caught.value.message == f"tenant acme: environment variable ACME_TOKEN {state}"
    assert remedy in caught.value.remedy


@pytest.mark.parametrize("name", ["FABRIC_SECRET_KEYS", "FABRIC_PROVISION_URL", "FABRIC_NEW", "DAGSTER_POSTGRES_URL", "DAGSTER_CLOUD_TOKEN"])
def test_the_platforms_own_variables_are_given_to_no_tenant(settings: Settings, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, CANARY)
    with pytest.raises(SecretError, match="belongs to the platform") as caught:
        # Past the model, which refuses them before.
        resolve_secret(SecretRef.model_construct(env=name, secret=None, file=None), tenant="acme", settings=settings)
    assert CANARY not in get_message(caught.value)


# --- files


@pytest.mark.parametrize(
    ("content", "value"),
    [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("two\nlines\n\n", "two\nlines\n"), (" spaces ", " spaces "), ("käse", "käse")],
)
def test_a_file_gives_its_text_without_the_last_newline(settings: Settings, content: str, value: str) -> None:
    (settings.data_dir / "mounted").mkdir()
    (settings.data_dir / "mounted" / "token").write_bytes(content.encode())
    assert resolve_secret(SecretRef(file="mounted/token"), tenant="acme", settings=settings) == value


@pytest.mark.parametrize(
    "path",
    ["/etc/hostname", "../token", "a/../../token", "warehouse/other.duckdb", "secrets/other.json", "inbox/other/ads.csv", "dagster/runs.db", ".", "a/.."],
)
def test_a_file_outside_of_the_tenants_reach_is_refused(settings: Settings, path: str) -> None:
    (settings.data_dir.parent / "token").write_text(CANARY)
    for folder in ("a", "warehouse", "secrets", "inbox/other", "dagster"):
        (settings.data_dir / folder).mkdir(parents=True)
    (settings.data_dir / "warehouse" / "other.duckdb").write_text(CANARY)
    (settings.data_dir / "secrets" / "other.json").write_text(CANARY)
    (settings.data_dir / "inbox" / "other" / "ads.csv").write_text(CANARY)
    (settings.data_dir / "dagster" / "runs.db").write_text(CANARY)
    with pytest.raises(SecretError, match="must lie below FABRIC_DATA_DIR") as caught:
        # Past the model, which refuses some of them before.
        resolve_secret(SecretRef.model_construct(env=None, secret=None, file=path), tenant="acme", settings=settings)
    assert CANARY not in get_message(caught.value)


def test_a_link_out_of_the_data_directory_is_refused(settings: Settings) -> None:
    (settings.data_dir.parent / "token").write_text(CANARY)
    (settings.data_dir / "token").symlink_to(settings.data_dir.parent / "token")
    with pytest.raises(SecretError, match="must lie below FABRIC_DATA_DIR"):
        resolve_secret(SecretRef(file="token"), tenant="acme", settings=settings)


def test_a_link_into_the_platforms_folders_is_refused(settings: Settings) -> None:
    (settings.data_dir / "warehouse").mkdir()
    (settings.data_dir / "warehouse" / "rows").write_text(CANARY)
    (settings.data_dir / "token").symlink_to("warehouse/rows")
    with pytest.raises(SecretError, match="must lie below FABRIC_DATA_DIR"):
        resolve_secret(SecretRef(file="token"), tenant="acme", settings=settings)


def test_a_link_within_the_data_directory_is_followed(settings: Settings) -> None:
    (settings.data_dir / "data").mkdir()
    (settings.data_dir / "data" / "token").write_text(CANARY)
    (settings.data_dir / "token").symlink_to("data/token")
    assert resolve_secret(SecretRef(file="token"), tenant="acme", settings=settings) == CANARY


def test_links_in_a_circle_are_refused_with_a_message(settings: Settings) -> None:
    (settings.data_dir / "token").symlink_to("token")
    with pytest.raises(SecretError, match="cannot be read"):
        resolve_secret(SecretRef(file="token"), tenant="acme", settings=settings)


def test_a_missing_file_is_named_with_its_remedy(settings: Settings) -> None:
    with pytest.raises(SecretError) as caught:
        resolve_secret(SecretRef(file="demo/token"), tenant="acme", settings=settings)
    assert caught.value.message == "tenant acme: secret file demo/token cannot be read: No such file or directory"
    assert str(settings.data_dir) in caught.value.remedy


@pytest.mark.parametrize(
    ("content", "reason"), [(b"", "is empty"), (b"\n", "is empty"), (b"x" * (MAXIMUM_BYTES + 1), "is larger than"), (b"\xff\xfe", "is no UTF-8 text")]
)
def test_a_file_that_holds_no_secret_is_refused(settings: Settings, content: bytes, reason: str) -> None:
    (settings.data_dir / "token").write_bytes(content)
    with pytest.raises(SecretError, match=reason):
        resolve_secret(SecretRef(file="token"), tenant="acme", settings=settings)


def test_a_folder_is_refused_as_a_secret(settings: Settings) -> None:
    (settings.data_dir / "token").mkdir()
    with pytest.raises(SecretError, match=r"Is a directory|no regular file"):
        resolve_secret(SecretRef(file="token"), tenant="acme", settings=settings)


def test_a_pipe_without_a_writer_is_refused_at_once(settings: Settings) -> None:
    os.mkfifo(settings.data_dir / "token")
    with pytest.raises(SecretError, match="no regular file"):
        resolve_secret(SecretRef(file="token"), tenant="acme", settings=settings)


# --- the sealed store


@pytest.mark.parametrize("value", [CANARY, "käse ☕", "two\nlines\n", '{"json": "\\u0000"}', "x" * MAXIMUM_BYTES])
def test_a_sealed_value_comes_back_as_it_was(settings: Settings, value: str) -> None:
    write_secret("acme", "shop_url", value, settings=settings)
    assert resolve_secret(SecretRef(secret="shop_url"), tenant="acme", settings=settings) == value


def test_the_store_is_readable_by_its_owner_alone_and_holds_no_plain_text(settings: Settings) -> None:
    old = os.umask(0)
    try:
        write_secret("acme", "shop_url", CANARY, settings=settings)
    finally:
        os.umask(old)
    file = naming.sealed_secrets_file(settings.data_dir, "acme")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert all(CANARY.encode() not in other.read_bytes() for other in file.parent.iterdir())


def test_secrets_are_listed_by_name_replaced_and_removed(settings: Settings) -> None:
    write_secret("acme", "b_key", "one", settings=settings)
    write_secret("acme", "a_key", "two", settings=settings)
    write_secret("acme", "b_key", "three", settings=settings)
    assert list_secrets("acme", settings=settings) == ("a_key", "b_key")
    assert resolve_secret(SecretRef(secret="b_key"), tenant="acme", settings=settings) == "three"
    remove_secret("acme", "a_key", settings=settings)
    assert list_secrets("acme", settings=settings) == ("b_key",)
    assert list_sealed_tenants(settings) == ("acme",)
    assert list_secrets("globex", settings=settings) == ()


def test_removing_what_is_not_there_names_what_is(settings: Settings) -> None:
    write_secret("acme", "a_key", CANARY, settings=settings)
    with pytest.raises(SecretError, match=r"no sealed secret b_key; did you mean 'a_key'\? known: a_key"):
        remove_secret("acme", "b_key", settings=settings)


def test_the_message_of_a_name_that_was_never_sealed_names_the_command(settings: Settings) -> None:
    with pytest.raises(SecretError) as caught:
        resolve_secret(SecretRef(secret="shop_url"), tenant="acme", settings=settings)
    assert caught.value.message == "tenant acme, secret shop_url is not in the sealed store; known: none"
    assert caught.value.remedy == "fabric secrets set acme shop_url"


def test_an_older_key_still_opens_and_the_newest_seals(settings: Settings) -> None:
    write_secret("acme", "old", CANARY, settings=settings)
    newer = Fernet.generate_key().decode()
    both = replace(settings, secret_keys=(newer, *settings.secret_keys))
    assert resolve_secret(SecretRef(secret="old"), tenant="acme", settings=both) == CANARY
    write_secret("acme", "new", CANARY, settings=both)
    assert Fernet(newer).decrypt(read_store(both, "acme")["new"])


@pytest.mark.parametrize(
    ("keys", "reason"), [((), "FABRIC_SECRET_KEYS, which is not set"), ((Fernet.generate_key().decode(),), "cannot be opened"), (("k3y-c4n4ry",), "key 1 of")]
)
def test_missing_wrong_and_broken_keys_have_different_messages(settings: Settings, keys: tuple[str, ...], reason: str) -> None:
    write_secret("acme", "shop_url", CANARY, settings=settings)
    with pytest.raises(SecretError, match=reason) as caught:
        resolve_secret(SecretRef(secret="shop_url"), tenant="acme", settings=replace(settings, secret_keys=keys))
    message = get_message(caught.value)
    assert caught.value.remedy
    assert CANARY not in message
    assert not any(key in message for key in (*keys, *settings.secret_keys))


def test_a_token_moved_to_another_tenant_does_not_open(settings: Settings) -> None:
    write_secret("acme", "shop_url", CANARY, settings=settings)
    put_tokens(settings, "globex", read_store(settings, "acme"))
    with pytest.raises(SecretError, match="tenant globex, secret shop_url holds a value that was sealed for another tenant or secret") as caught:
        resolve_secret(SecretRef(secret="shop_url"), tenant="globex", settings=settings)
    assert CANARY not in get_message(caught.value)


def test_a_token_moved_to_another_name_does_not_open(settings: Settings) -> None:
    write_secret("acme", "shop_url", CANARY, settings=settings)
    put_tokens(settings, "acme", {"crm_url": read_store(settings, "acme")["shop_url"]})
    with pytest.raises(SecretError, match="sealed for another tenant or secret") as caught:
        resolve_secret(SecretRef(secret="crm_url"), tenant="acme", settings=settings)
    assert CANARY not in get_message(caught.value)


@pytest.mark.parametrize("position", [0, 20, 60, -1])
def test_a_tampered_token_does_not_open(settings: Settings, position: int) -> None:
    write_secret("acme", "shop_url", CANARY, settings=settings)
    token = list(read_store(settings, "acme")["shop_url"].rstrip("="))
    token[position] = "A" if token[position] != "A" else "Q"
    put_tokens(settings, "acme", {"shop_url": "".join(token)})
    with pytest.raises(SecretError, match="cannot be opened") as caught:
        resolve_secret(SecretRef(secret="shop_url"), tenant="acme", settings=settings)
    assert "".join(token) not in get_message(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2, "secrets": {}}', '{"version": 1, "secrets": {"a": 1}}'])
def test_a_damaged_store_is_reported_and_not_overwritten(settings: Settings, content: str) -> None:
    file = naming.sealed_secrets_file(settings.data_dir, "acme")
    file.parent.mkdir()
    file.write_text(content)
    with pytest.raises(SecretError, match="is damaged"):
        resolve_secret(SecretRef(secret="a"), tenant="acme", settings=settings)
    with pytest.raises(SecretError, match="is damaged"):
        write_secret("acme", "a", CANARY, settings=settings)
    assert file.read_text() == content


@pytest.mark.parametrize(("tenant", "name"), [("../globex", "key"), ("Acme", "key"), ("acme", "../key"), ("acme", ""), ("pg_acme", "key")])
def test_names_that_are_none_are_refused(settings: Settings, tenant: str, name: str) -> None:
    with pytest.raises(ConfigurationError):
        write_secret(tenant, name, CANARY, settings=settings)
    assert not (settings.data_dir / "secrets").exists()


@pytest.mark.parametrize("value", ["", "x" * (MAXIMUM_BYTES + 1)])
def test_empty_and_huge_values_are_refused(settings: Settings, value: str) -> None:
    with pytest.raises(SecretError):
        write_secret("acme", "key", value, settings=settings)


def test_writers_at_the_same_time_lose_nothing(settings: Settings) -> None:
    names = [f"key_{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: write_secret("acme", name, CANARY, settings=settings), names))
    assert list_secrets("acme", settings=settings) == tuple(sorted(names))


def test_a_writer_that_is_killed_leaves_the_old_store_whole(settings: Settings) -> None:
    write_secret("acme", "key", CANARY, settings=settings)
    program = (
        "import os, sys; os.replace = lambda *_: os._exit(9)\n"
        "from pathlib import Path; from fabric_assets.security.secrets import write_secret; from fabric_assets.settings import Settings\n"
        "settings = Settings(tenants_dir=Path(), dbt_project_dir=Path(), data_dir=Path(sys.argv[1]), secret_keys=(sys.argv[2],))\n"
        "write_secret('acme', 'key', 'other', settings=settings)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(settings.data_dir), settings.secret_keys[0]], check=False)
    assert killed.returncode == 9
    assert resolve_secret(SecretRef(secret="key"), tenant="acme", settings=settings) == CANARY
    write_secret("acme", "key", "third", settings=settings)
    assert list_sealed_tenants(settings) == ("acme",)


def test_no_error_of_the_store_shows_the_settings_keys(settings: Settings) -> None:
    assert settings.secret_keys[0] not in repr(settings)
    with pytest.raises(FabricError) as caught:
        resolve_secret(SecretRef(secret="nothing"), tenant="acme", settings=settings)
    assert settings.secret_keys[0] not in get_message(caught.value)


# --- a tenant that has gone


def test_nothing_is_sealed_for_a_tenant_that_has_gone_and_no_file_of_it_made(settings: Settings) -> None:
    open_journal("acme", settings.data_dir, {})
    with pytest.raises(ConfigurationError, match="tenant acme is being offboarded, and takes no work"):
        write_secret("acme", "token", CANARY, settings=settings)
    assert not naming.sealed_secrets_file(settings.data_dir, "acme").parent.exists()


def test_a_waiter_for_the_store_is_refused_once_the_offboarding_has_begun(settings: Settings) -> None:
    with ThreadPoolExecutor(1) as pool:
        with locked("acme", settings):
            writing = pool.submit(write_secret, "acme", "token", CANARY, settings=settings)
            lock = naming.sealed_secrets_file(settings.data_dir, "acme").with_name(".acme.lock").stat().st_ino
            wait_until(lambda: any("->" in line and f":{lock} " in line for line in Path("/proc/locks").read_text().splitlines()))
            open_journal("acme", settings.data_dir, {})
        with pytest.raises(ConfigurationError, match="is being offboarded"):
            writing.result()
    assert list_sealed_tenants(settings) == ()
