"""The project's own files: dependencies and their bounds, make targets, what Dagster reads at the root."""

import importlib
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = tomllib.loads((ROOT / "uv.lock").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()

RUNTIME = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]]
EXTRAS = {name: [Requirement(text) for text in texts] for name, texts in PYPROJECT["project"]["optional-dependencies"].items()}
DEVELOPMENT, TAPS = ([Requirement(text) for text in PYPROJECT["dependency-groups"][group]] for group in ("dev", "taps"))
DIRECT = [*RUNTIME, *DEVELOPMENT, *TAPS, *(requirement for extra in EXTRAS.values() for requirement in extra)]


def get_lower_bound(requirement: Requirement) -> Version:
    return next(Version(part.version) for part in requirement.specifier if part.operator == ">=")


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda requirement: requirement.name)
def test_a_direct_dependency_is_bounded_on_both_sides(requirement: Requirement) -> None:
    assert sorted(part.operator for part in requirement.specifier) == ["<", ">="], f"{requirement.name} needs >= and <"


def test_the_lock_file_was_resolved_from_these_dependencies() -> None:
    package = next(package for package in LOCK["package"] if package["name"] == PYPROJECT["project"]["name"])
    locked = {(entry["name"], SpecifierSet(entry["specifier"])) for entry in package["metadata"]["requires-dist"]}
    locked |= {(entry["name"], SpecifierSet(entry["specifier"])) for group in ("dev", "taps") for entry in package["metadata"]["requires-dev"][group]}
    assert locked == {(requirement.name.lower(), requirement.specifier) for requirement in DIRECT}, "run `make lock`"


def test_the_oldest_environment_has_every_lower_bound() -> None:
    pins = dict(line.split(" ;")[0].strip().split("==") for line in (ROOT / "requirements-oldest.txt").read_text().splitlines() if "==" in line)
    # The other extras may not be installed together with embedded-elt, or ask for nothing of ours.
    tested = [*RUNTIME, *DEVELOPMENT, *EXTRAS["embedded-elt"]]
    too_new = {requirement.name: pins[requirement.name] for requirement in tested if Version(pins[requirement.name]) != get_lower_bound(requirement)}
    assert not too_new, "these lower bounds are not what was tested; raise them to these versions, then `make lock`"


def test_the_lock_holds_a_dbt_that_pip_cannot_install_and_the_oldest_environment_one_that_it_can() -> None:
    (bounds,) = [requirement.specifier for requirement in RUNTIME if requirement.name == "dbt-core"]
    locked = {package["name"]: package["version"] for package in LOCK["package"] if package["name"].startswith("dbt-core")}
    assert locked.keys() == {"dbt-core"}, "the parser of dbt-core 1.12 is left out by [tool.uv]"
    assert (locked["dbt-core"] in bounds, locked["dbt-core"] in SpecifierSet(">=1.12,<1.13")) == (False, True)
    admitted = SpecifierSet(",".join(yaml.safe_load((ROOT / "dbt_project" / "dbt_project.yml").read_text())["require-dbt-version"]))
    assert locked["dbt-core"] in admitted
    assert "1.11.2" in admitted


def test_the_oldest_environment_holds_the_dagster_that_embedded_elt_pins() -> None:
    assert "dagster==1.13.1\n" in (ROOT / "requirements-oldest.txt").read_text()


def read_documented_dependencies(heading: str) -> dict[str, str]:
    """Package -> reason, from the table below a heading of docs/dependencies.md."""
    text = (ROOT / "docs" / "dependencies.md").read_text()
    section = re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("| `")]
    return {row[-3 if heading == "Needed to run" else -2].strip("`"): row[1 if heading != "Extras" else 2] for row in rows}


@pytest.mark.parametrize(
    ("heading", "requirements"),
    [
        ("Needed to run", RUNTIME),
        ("Extras", [requirement for extra in EXTRAS.values() for requirement in extra]),
        ("Development (groups `dev` and `taps`)", [*DEVELOPMENT, *TAPS]),
    ],
)
def test_each_dependency_is_documented_with_its_reason(heading: str, requirements: list[Requirement]) -> None:
    documented = read_documented_dependencies(heading)
    assert sorted(documented) == sorted(requirement.name for requirement in requirements)
    assert all(documented.values())


def test_each_extra_is_documented() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert [name for name in EXTRAS if f"| `{name}` |" not in page] == []


# --- what Dagster reads


def test_dagster_yaml_gives_each_warehouse_one_writer_and_ends_lost_runs(tmp_path: Path) -> None:
    shutil.copy(ROOT / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        pools = instance.get_concurrency_config().pool_config
        assert pools.default_pool_limit == 1
        assert pools.pool_granularity is not None
        assert pools.pool_granularity.value == "op"
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_max_runtime_seconds == 14400
        assert (instance.run_retries_enabled, instance.run_retries_max_retries) == (True, 2)
        assert instance.run_retries_retry_on_asset_or_op_failure is False
        assert instance.telemetry_enabled is False
        # Each look at an inbox of many files keeps a cursor that is as long.
        assert instance.get_settings("retention")["sensor"]["purge_after_days"]["skipped"] == 1


def test_workspace_and_dg_name_the_same_code_location() -> None:
    entry = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    project = PYPROJECT["tool"]["dg"]["project"]
    assert entry == {"module_name": project["code_location_target_module"], "location_name": project["code_location_name"]}
    assert hasattr(importlib.import_module(entry["module_name"]), "defs")


# --- make


def get_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_make_offers_what_the_contract_names() -> None:
    assert {"demo", "test", "dev", "check", "test-oldest"} <= get_targets()


def test_continuous_integration_runs_check_then_test_on_both_versions_of_dbt_and_demands_every_service() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r"^(?:\w+=\S+ )?(make [\w-]+)$", script, re.MULTILINE) == ["make check", "make test", "make test-older-dbt"]
    assert "FABRIC_TEST_SERVICES=required" in script
    # What the second leaves out the first has run.
    run_by_check = re.search(r"^docs:\n\t\$\(RUN\) pytest -q (.+)$", MAKEFILE, re.MULTILINE)
    assert run_by_check is not None
    assert re.findall(r"--ignore=([^\s\"]+)", script) == run_by_check[1].split()


def test_the_pre_commit_hooks_are_the_parts_of_make_check() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    parts = re.search(r"^check:.*\n\t.*-directory (.+)$", MAKEFILE, re.MULTILINE)
    assert parts is not None
    assert [hook["entry"] for hook in hooks] == [f"make {part}" for part in parts[1].split()]


def run_uv(tools: Path, *, home: Path) -> subprocess.CompletedProcess[str]:
    """Run scripts/uv with nothing on PATH but `tools`, in a copy that has no environment yet."""
    for name in ("sh", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or name)
    copy = home / "project" / "scripts"
    copy.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "uv", copy)
    return subprocess.run([str(copy / "uv"), "--version"], env={"PATH": str(tools), "HOME": str(home)}, capture_output=True, text=True, check=False)


def write_program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_a_python_that_is_too_old_is_refused_with_one_message(tmp_path: Path) -> None:
    (tools := tmp_path / "bin").mkdir()
    write_program(tools / "python3", '[ "$1" = --version ] && echo Python 3.10.13 && exit 0\nexit 1')
    result = run_uv(tools, home=tmp_path)
    assert result.returncode == 2
    assert "Python 3.11, 3.12 or 3.13 with its venv module is needed; python3 here is: Python 3.10.13." in result.stderr
    assert not (tmp_path / "project" / ".uv").exists()


def test_a_uv_on_the_path_is_used_as_it_is(tmp_path: Path) -> None:
    (tools := tmp_path / "bin").mkdir()
    write_program(tools / "python3", "exit 0")
    write_program(tools / "uv", "echo uv 0.12.1")
    assert run_uv(tools, home=tmp_path).stdout == "uv 0.12.1\n"


def test_a_uv_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    (tools := tmp_path / "bin").mkdir()
    # Stands in for python3: makes the folder that `python3 -m venv` would make, with a pip that "installs" uv there.
    python = (
        'case "$*" in *"-m venv"*) mkdir -p .uv/bin; cp "$0" .uv/bin/python ;;'
        " *\"-m pip install\"*) printf '#!/bin/sh\\necho uv 0.13.8\\n' > .uv/bin/uv; chmod +x .uv/bin/uv ;; esac"
    )
    write_program(tools / "python3", python)
    write_program(tools / "uv", "echo uv 0.8.4")
    for name in ("mkdir", "cp", "chmod"):
        (tools / name).symlink_to(shutil.which(name) or name)
    result = run_uv(tools, home=tmp_path)
    assert (result.stdout, result.returncode) == ("uv 0.13.8\n", 0)
    assert result.stderr == f"Installing uv into {tmp_path / 'project'}/.uv\n"


def test_no_file_names_this_machine_or_is_unfinished() -> None:
    words = re.compile("|".join(["/wo" + "rk/", "/ro" + "ot/", r"\.lib" + "rary", "TO" + "DO", "FIX" + "ME", "lorem ip" + "sum"]))
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    found = []
    for name in listed:
        file = ROOT / name
        if name.startswith("dbt_project/dbt_packages/"):  # as its authors wrote it
            continue
        if file.suffix in {".lock", ".png", ".parquet"} or not file.is_file() or file.is_symlink():
            continue
        found += [
            f"{name}:{number}: {line.strip()[:100]}"
            for number, line in enumerate(file.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
            if words.search(line)
        ]
    assert listed
    assert found == []
