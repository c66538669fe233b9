"""Hostile files and names: each refused, with a reason, before it costs time or memory, and for that tenant alone."""

import json
import os
import string
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fabric_assets import naming
from fabric_assets.config.loader import load_fleet
from fabric_assets.settings import Settings
from tests.conftest import ROOT

HEAD = b"version: 1\ntenant: evil\n"
BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [*%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c, *%c]\n" % (b + 1, b + 1, *[b] * 9) for b in b"abcdefghi"
)
ATTACKS = {
    "ten megabytes": (b"# " + b"x" * 10_000_000, "larger than 256 KiB"),
    "ten megabytes of one line breaks": (b"\n" * 10_000_000, "larger than 256 KiB"),
    "ten thousand lists in each other": (HEAD + b"transform: " + b"[" * 10_000 + b"]" * 10_000, "nested more than 32 levels"),
    "lists that are never closed": (HEAD + b"transform: " + b"[" * 250_000, "nested more than 32 levels"),
    "mappings in each other": (HEAD + b"transform: " + b"{a: " * 50_000, "nested more than 32 levels"),
    "blocks in each other": (HEAD + b"\n".join(b" " * depth + b"a:" for depth in range(600)), "nested more than 32 levels"),
    "list items in each other": (b"- " * 100_000, "nested more than 32 levels"),
    "keys that are mappings": (b"? " * 100_000, "a key must be a word"),
    "alias bomb": (HEAD + BOMB, "anchors (&name) are not allowed"),
    "merge keys": (HEAD + b"transform: {<<: {select: []}}", "merge keys (<<) are not allowed"),
    "a python object": (HEAD + b"display_name: !!python/object/apply:os.system ['true']", "tags (!name) are not allowed"),
    "a python name": (HEAD + b"display_name: !!python/name:os.system", "tags (!name) are not allowed"),
    "a tag of one's own": (HEAD + b"display_name: !include /etc/passwd", "tags (!name) are not allowed"),
    "NUL": (HEAD + b"display_name: a\0b", "NUL"),
    "NUL, escaped": (HEAD + b'display_name: "a\\0b"', "control characters"),
    "escape sequences for the terminal": (HEAD + b'"\\e[2J": 1', "unknown key"),
    "latin-1": (HEAD + b"display_name: Caf\xe9", "not UTF-8"),
    "UTF-16": ("version: 1\ntenant: evil\n".encode("utf-16"), "not UTF-8"),
    "a lone surrogate": (HEAD + b'display_name: "\\ud800"', "not valid YAML"),
    "bytes at random": (bytes(range(256)) * 100, "not UTF-8"),
    "a number of 200,000 digits": (HEAD + b"display_name: x\ntimezone: " + b"9" * 200_000, "at most 4000 characters"),
    "a key of 200,000 letters": (HEAD + b"? " + b"k" * 200_000 + b"\n: 1", "unknown key"),
    "20,000 unknown keys": (HEAD + b"".join(b"k%d: 1\n" % number for number in range(20_000)), "unknown key"),
    "20,000 times the same key": (HEAD + b"version: 1\n" * 20_000, "duplicate key"),
    "20,000 unknown keys in one line": (HEAD + b"transform: {" + b", ".join(b"k%d: 1" % number for number in range(20_000)) + b"}", "unknown key"),
    "two documents": (HEAD + b"---\n" + HEAD, "a file holds one document"),
    "a word for false as a list": (HEAD + b"owners: [no]", "owners"),
    "an unknown key": (HEAD + b"destinations: {type: duckdb}", "unknown key"),
    "billion laughs without aliases": (HEAD + b"transform: {vars: {a: [" + b"[x,x,x,x,x,x,x,x,x]," * 14_000 + b"]}}", "larger than 256 KiB"),
    "nothing": (b"", "the file is empty"),
    "an endless quote": (HEAD + b"display_name: '" + b"x" * 200_000, "never closed"),
}


def serve(settings: Settings) -> tuple[list[str], dict[str, str]]:
    fleet = load_fleet(settings)
    return sorted(fleet.tenants), {name: "\n".join(map(str, problems)) for name, problems in fleet.broken.items()}


@pytest.mark.timeout(60)  # Milliseconds, in truth; what grows with the square of the file, or worse, takes minutes.
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_file_is_refused_at_once_and_stops_no_other_tenant(attack: str, settings: Settings, write_tenant: Callable[..., Path]) -> None:
    data, words = ATTACKS[attack]
    write_tenant("good", {})
    (settings.tenants_dir / "evil.yaml").write_bytes(data)
    healthy, broken = serve(settings)
    assert healthy == ["good"]
    assert list(broken) == ["evil"]
    assert words in broken["evil"]
    # What is shown goes to terminals and logs.
    assert not {char for char in broken["evil"] if char < " "} - {"\n"}


@pytest.mark.parametrize("written", ["no", "on", "2024-01-01", "12:30"])
def test_a_word_stays_the_word_that_was_written(written: str, settings: Settings, write_tenant: Callable[..., Path]) -> None:
    """YAML 1.1 makes false, true, a date and a number of them."""
    write_tenant("good", {}).write_text(f"version: 1\ntenant: good\ndisplay_name: {written}\n")
    assert load_fleet(settings).tenants["good"].config.display_name == written


def test_a_folder_pipe_or_device_is_refused_without_waiting_for_it(settings: Settings, write_tenant: Callable[..., Path]) -> None:
    write_tenant("good", {})
    os.mkfifo(settings.tenants_dir / "a_pipe.yaml")
    (settings.tenants_dir / "a_folder.yaml").mkdir()
    (settings.tenants_dir / "a_dead_link.yaml").symlink_to(settings.tenants_dir / "nowhere")
    (settings.tenants_dir / "a_loop.yaml").symlink_to(settings.tenants_dir / "a_loop.yaml")
    (settings.tenants_dir / "a_device.yaml").symlink_to("/dev/zero")
    healthy, broken = serve(settings)
    assert healthy == ["good"]
    assert "a folder, a pipe or a device" in broken["a_pipe"]
    assert "a folder, a pipe or a device" in broken["a_folder"]
    assert "a folder, a pipe or a device" in broken["a_device"]
    assert "link to a file that does not exist" in broken["a_dead_link"]
    assert "cannot be read: Too many levels of symbolic links" in broken["a_loop"]


def test_a_link_to_a_file_is_followed_as_kubernetes_mounts_them(settings: Settings, tmp_path: Path, write_tenant: Callable[..., Path]) -> None:
    write_tenant("acme", {}).rename(tmp_path / "mounted")
    (settings.tenants_dir / "acme.yaml").symlink_to(tmp_path / "mounted")
    assert serve(settings)[0] == ["acme"]


@pytest.mark.parametrize(
    "name",
    [
        'x"; DROP SCHEMA public',
        "..",
        "../b",
        "a/b",
        "/etc/passwd",
        "a\\b",
        "a.b",
        "a;b",
        "a--b",
        "a\tb",
        "stg_acme",
        "information_schema",
        "fabric_other",
        "acme_staging",
        "ACME",
        "acme-1",
        "acme__1",
        "pg_catalog",
        "public",
        "a" * 64,
        "acm\u00e9",
        "acme\u0301",
        "\uff41cme",
        "\u0430cme",
        "acme\u200b",
        "🤷",
        "acme ",
        " acme",
        "1acme",
        "_",
        "*",
    ],
)
def test_a_hostile_tenant_name_is_refused(name: str, settings: Settings) -> None:
    (settings.tenants_dir / "evil.yaml").write_text(f"version: 1\ntenant: {name!r}\n", encoding="utf-8")
    (settings.tenants_dir / "good.yaml").write_text("version: 1\ntenant: good\n")
    healthy, broken = serve(settings)
    assert healthy == ["good"]
    assert "tenant: " in broken["evil"]


HOSTILE_FILES = [
    "ACME",
    "acme-1",
    "acm\u00e9",
    "acme\u0301",
    "\U0001f937",
    "acme ",
    " acme",
    'x"; DROP SCHEMA public',
    "a" * 64,
    "pg_catalog",
    "public",
    "acme_staging",
]


def test_each_hostile_file_name_is_refused_and_other_tenants_load(settings: Settings, write_tenant: Callable[..., Path]) -> None:
    """Among them two that dlt would make one name with a sound tenant, and two that look the same."""
    for name in ("acme", "acme_1"):
        write_tenant(name, {})
    for name in HOSTILE_FILES:
        (settings.tenants_dir / f"{name}.yaml").write_text("version: 1\n", encoding="utf-8")
    healthy, broken = serve(settings)
    assert healthy == ["acme", "acme_1"]
    assert sorted(broken) == sorted(HOSTILE_FILES)


@pytest.mark.parametrize("name", ["Shop", "shop-1", "shop__1", "sh\u00f6p", "\U0001f937", "shop ", 'x"; --', "a" * 41, "../shop", "_shop", ""])
@pytest.mark.parametrize("kind", ["source", "stream", "schedule"])
def test_a_hostile_name_of_a_part_is_refused(kind: str, name: str, settings: Settings, write_tenant: Callable[..., Path]) -> None:
    names = {"source": "shop", "stream": "orders", "schedule": "nightly"} | {kind: name}
    source = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {names["stream"]: {}}}
    write_tenant("evil", {"sources": {names["source"]: source}, "schedules": {names["schedule"]: {"cron": "0 3 * * *"}}})
    write_tenant("good", {})
    healthy, broken = serve(settings)
    assert healthy == ["good"]
    assert {"source": "sources", "stream": "streams", "schedule": "schedules"}[kind] in broken["evil"]


def test_the_code_location_loads_other_tenants_beside_all_hostile_files(
    settings: Settings, settings_environ: Mapping[str, str], write_tenant: Callable[..., Path]
) -> None:
    """As Dagster does it, in a process of its own."""
    write_tenant("good", {"sources": {"shop": {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": {"orders": {}}}}})
    for number, (data, _) in enumerate(ATTACKS.values()):
        (settings.tenants_dir / f"evil_{number}.yaml").write_bytes(data)
    for name in HOSTILE_FILES:
        (settings.tenants_dir / f"{name}.yaml").write_text("version: 1\n", encoding="utf-8")
    program = (
        "import json\nfrom fabric_assets import definitions\ngraph = definitions.defs().resolve_asset_graph()\n"
        "print(json.dumps([sorted('/'.join(key.path) for key in graph.get_all_asset_keys()), len(graph.asset_check_keys)]))"
    )
    process = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert process.returncode == 0, process.stderr
    keys, checks = json.loads(process.stdout.splitlines()[-1])
    broken = [key for key in keys if key.endswith("/config")]
    assert [key for key in keys if key not in broken] == ["good/isolation", "good/raw/shop/orders"]
    assert len(broken) == checks - 1 == len(ATTACKS) + len(HOSTILE_FILES)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(alphabet=string.ascii_letters + string.digits + "_-é ", min_size=1, max_size=45))
@example("acme_1")
@example("acme_1x")
def test_a_name_that_is_accepted_is_spelt_by_dlt_as_it_is(name: str) -> None:
    normalise = NamingConvention(max_length=63).normalize_identifier
    if naming.get_name_error(name) is None:
        assert normalise(name) == name
    if naming.get_tenant_name_error(name) is None:
        assert normalise(naming.raw_dataset(name, "shop")) == naming.raw_dataset(name, "shop")


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_make_the_loader_raise(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "evil.yaml"
    file.write_bytes(data)
    fleet = load_fleet(Settings(tmp_path, tmp_path, tmp_path))
    assert fleet.tenants == {}
    assert list(fleet.broken) == ["evil"]
    assert all(str(problem) for problem in fleet.broken["evil"])


YAML = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.text(max_size=8), st.sampled_from(["merge", "sql_database", "all"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.text(min_size=1, max_size=5),
                st.sampled_from(["type", "streams", "sources", "url", "env", "cursor", "cron", "target", "transform", "checks", "schedules", "destination"]),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["sources", "checks", "schedules", "transform", "destination", "extends", "owners", "timezone"]), YAML, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_values_of_any_shape_give_problems_with_line_and_column(tmp_path: Path, body: dict[str, object]) -> None:
    import yaml

    file = tmp_path / "evil.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "tenant": "evil", **body}, allow_unicode=True), encoding="utf-8")
    fleet = load_fleet(Settings(tmp_path, tmp_path, tmp_path))
    lines = file.read_text("utf-8").count("\n") + 1
    for problem in fleet.broken.get("evil", ()):
        assert 1 <= problem.line <= lines
        assert problem.message
        assert "Input should" not in problem.message
