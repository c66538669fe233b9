"""The rules of the architecture that import-linter cannot check; and the steps of CONTRIBUTING's "Add a source type"."""

import ast
import importlib.util
import inspect
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

from fabric_assets.config.sources.any_source import AnySource
from fabric_assets.config.sources.files import FileFormat
from fabric_assets.config.tenant import AnyDestination
from fabric_assets.connectors.registry import CONNECTORS
from fabric_assets.drivers.kinds import KINDS
from tests.contract import kinds as contract
from tests.contract.files import Jsonl

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fabric_assets"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 300
MOST_MODULES = 20
# What a process pays for by importing it: none of it may lie on the way to the definitions.
HEAVY = {"adbc_driver_manager", "dagster_dbt", "dagster_dlt", "dbt", "dlt", "duckdb", "jafgen", "numpy", "pandas", "psycopg2", "pyarrow", "s3fs"}
HEAVY |= {"sqlalchemy", "sqlglot"}


def read_tree(module: Path) -> ast.Module:
    return ast.parse(module.read_text(encoding="utf-8"))


def get_imports(module: Path) -> Iterator[str]:
    for node in ast.walk(read_tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# --- modules


def name(module: Path) -> str:
    return str(module.relative_to(ROOT))


def test_no_module_is_too_long() -> None:
    lengths = {name(module): len(module.read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert {module: length for module, length in lengths.items() if length > LONGEST} == {}


def test_every_folder_holds_what_one_job_needs() -> None:
    folders = Counter(module.parent.relative_to(ROOT).as_posix() for module in MODULES if module.name != "__init__.py")
    assert {folder: modules for folder, modules in folders.items() if modules > MOST_MODULES} == {}


def test_every_module_is_named_for_the_noun_that_it_owns() -> None:
    assert [name(module) for module in MODULES if re.fullmatch(r"utils?|helpers?|common|misc|managers?", module.stem)] == []


def test_every_module_says_what_it_turns_into_what() -> None:
    assert [name(module) for module in MODULES if module.name != "__init__.py" and not ast.get_docstring(read_tree(module))] == []


def test_no_package_re_exports_anything() -> None:
    assert [name(module) for module in MODULES if module.name == "__init__.py" and any(get_imports(module))] == []


def test_sql_is_quoted_in_one_module() -> None:
    by_hand = re.compile(r"""replace\((['"])(['"])\1, \1\2\2\1\)|from \\?"\{""")
    assert [name(module) for module in MODULES if by_hand.search(module.read_text(encoding="utf-8"))] == ["fabric_assets/quoting.py"]


def test_files_are_locked_in_one_module() -> None:
    assert [name(module) for module in MODULES if "fcntl" in get_imports(module)] == ["fabric_assets/private_files.py"]


def test_similar_names_are_looked_for_in_one_module() -> None:
    # problems.py asks whether a key may be a misspelt word for a secret, which suggests nothing.
    near = {name(module) for module in MODULES for imported in get_imports(module) if imported.startswith("difflib")}
    assert near == {"fabric_assets/suggestions.py", "fabric_assets/config/problems.py"}


def get_room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def get_own_exceptions(module: Path) -> list[str]:
    classes = [node for node in ast.walk(read_tree(module)) if isinstance(node, ast.ClassDef)]
    return [node.name for node in classes if any(isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception")) for base in node.bases)]


def test_every_exception_that_leaves_its_package_is_in_errors_py() -> None:
    own = {(get_room(module), exception) for module in MODULES if module.name != "errors.py" for exception in get_own_exceptions(module)}
    foreign = {
        (imported.split(".")[1], imported.rsplit(".", 1)[1])
        for module in MODULES
        for imported in get_imports(module)
        if imported.startswith("fabric_assets.") and imported.split(".")[1] != get_room(module)
    }
    assert own & foreign == set()


# --- loading the code location

WATCH = """
import json, os, sys

events = []
watched = {"socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.system", "sqlite3.connect"}
secret = os.environ["CANARY_FILE"]


def hook(event, arguments):
    if event in watched or (event == "open" and str(arguments[0]) == secret):
        events.append(f"{event} {arguments[:1]}")


import dagster  # its own start-up is not ours to judge

sys.addaudithook(hook)
from fabric_assets.definitions import defs

definitions = defs()
repository = definitions.get_repository_def()
repository.get_all_jobs()
keys = sorted("/".join(key.path) for key in repository.asset_graph.get_all_asset_keys())
print(json.dumps({"events": events, "modules": sorted({name.split(".")[0] for name in sys.modules}), "keys": keys}))
"""

TENANT = {
    "version": 1,
    "tenant": "acme",
    "sources": {
        "shop": {
            "type": "sql_database",
            "url": {"file": "shop_url"},
            "streams": {name: {"primary_key": "id"} for name in ("customers", "orders", "items", "products", "supplies", "stores")},
        }
    },
    "transform": {"select": ["staging.shop", "marts.sales"]},
    "schedules": {"nightly": {"cron": "0 3 * * *"}},
}


def load_location(folder: Path, prepared: Path, tenants: Sequence[Mapping[str, Any]], secrets: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Load the code location of these tenants in a separate process, and return what it does.

    Args:
        prepared: the parsed dbt project.
        secrets: environment variables that the tenants' references name.
    """
    for name in ("tenants", "data"):
        (folder / name).mkdir(mode=0o700, exist_ok=True)
    (folder / "data" / "shop_url").write_text("sqlite:////nowhere")
    for tenant in tenants:
        (folder / "tenants" / f"{tenant['tenant']}.yaml").write_text(yaml.safe_dump(tenant))
    environment = {
        "FABRIC_TENANTS_DIR": str(folder / "tenants"),
        "FABRIC_DATA_DIR": str(folder / "data"),
        "FABRIC_DBT_PROJECT_DIR": str(ROOT / "dbt_project"),
        "FABRIC_STRICT": "1",
    }
    shutil.copytree(prepared, folder / "data" / "dbt" / "prepared")
    child = subprocess.run(
        [sys.executable, "-c", WATCH],
        env=os.environ | environment | {"CANARY_FILE": str(folder / "data" / "shop_url")} | (secrets or {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def loaded_location(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> dict[str, Any]:
    return load_location(tmp_path_factory.mktemp("location"), prepared_data, [TENANT])


def test_loading_definitions_opens_no_socket_no_secret_no_table_and_starts_no_process(loaded_location: dict[str, Any]) -> None:
    assert "acme/raw/shop/orders" in loaded_location["keys"]
    assert loaded_location["events"] == []


def test_loading_definitions_imports_neither_dlt_nor_dbt(loaded_location: dict[str, Any]) -> None:
    assert HEAVY & set(loaded_location["modules"]) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["demo", "--help"], ["validate", "--help"]], ids=" ".join)
def test_help_comes_without_the_engines(arguments: list[str]) -> None:
    script = f"import sys, json\nsys.argv = ['fabric', *{arguments!r}]\nfrom fabric_assets.cli.main import main\ntry:\n    main()\nfinally:\n"
    script += "    print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert child.returncode == 0, child.stderr
    assert (HEAVY | {"dagster"}) & set(json.loads(child.stdout.splitlines()[-1])) == set()


def test_a_dbt_process_imports_no_models_of_the_yaml() -> None:
    """Each build would pay for them: 0.1 s of its 2."""
    script = (
        "import json, sys\nfrom fabric_assets.transform.worker import __main__, warming\nwarming.import_dbt('duckdb')\nprint(json.dumps(list(sys.modules)))"
    )
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = json.loads(child.stdout.splitlines()[-1])
    assert "dbt.cli.main" in modules
    assert [name for name in modules if name.startswith("fabric_assets.config")] == []


def test_the_load_engine_imports_no_reader_and_no_driver() -> None:
    """Each load pays for what the engine imports, also a load of files."""
    script = "import json, sys, fabric_assets.loading.load\nprint(json.dumps(list(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    modules = set(json.loads(child.stdout))
    assert HEAVY & modules <= {"pyarrow", "numpy"}
    assert [name for name in modules if re.fullmatch(r"fabric_assets\.connectors\.\w+\.\w+", name)] == []


def test_a_load_imports_no_readers_and_drivers_of_other_sources(tmp_path: Path) -> None:
    """Each costs every load its share of the start: half a second of a run is imports."""
    with sqlite3.connect(tmp_path / "shop.db") as database:
        database.execute("create table orders (id integer primary key)")
    script = """
import json, sys
from pathlib import Path
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.loading.load import run_load
from fabric_assets.rows.reports import LoadRequest
from fabric_assets.settings import load_settings
shop = {"type": "sql_database", "url": {"file": "url"}, "streams": {"orders": {"primary_key": "id"}}}
tenant = TenantConfig.model_validate({"version": 1, "tenant": "acme", "sources": {"shop": shop}})
reports = list(run_load(LoadRequest(tenant=tenant, source="shop", streams=(), settings=load_settings()), report=print))
print(json.dumps({"reports": [type(report).__name__ for report in reports], "modules": sorted(sys.modules)}))
"""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "url").write_text(f"sqlite:///{tmp_path}/shop.db")
    child = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=os.environ | {"FABRIC_DATA_DIR": str(tmp_path / "data")}, capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.splitlines()[-1])
    assert found["reports"] == ["StreamReport"]
    assert {"psycopg2", "pymysql", "openpyxl", "xml.etree.ElementTree", "pyarrow.csv"} & set(found["modules"]) == set()
    assert [name for name in found["modules"] if "connectors.rest_api" in name or "connectors.csv_import" in name] == []


# --- adding a source type: each step of CONTRIBUTING has its test

SOURCE_TYPES = [get_args(model.model_fields["type"].annotation)[0] for model in get_args(get_args(AnySource)[0])]
each_source_type = pytest.mark.parametrize("source_type", SOURCE_TYPES)


def test_the_registry_holds_exactly_the_declared_source_types() -> None:
    assert sorted(CONNECTORS) == sorted(SOURCE_TYPES), "step 3: name the type in connectors/registry.py"


@each_source_type
def test_a_source_type_runs_the_contract_suite(source_type: str) -> None:
    assert source_type in {source.type for source in contract.SOURCES.values()}, "step 6: name a class of the type in tests/contract/kinds.py"


@pytest.mark.parametrize("form", get_args(FileFormat))
def test_a_format_of_files_runs_the_contract_suite(form: str) -> None:
    assert form in {source.form for source in contract.SOURCES.values() if issubclass(source, Jsonl) and source.type == "files"}


def get_declared_types(folder: str) -> set[str]:
    """List the source types in the example files of a folder; files that are not YAML are skipped."""
    types = set()
    for file in (ROOT / "tests" / "examples" / folder).rglob("*.yaml"):
        types |= set(re.findall(r"\btype: *[\"']?([a-z_]+)", file.read_text(encoding="utf-8", errors="ignore")))
    return types


@each_source_type
def test_a_source_type_has_a_valid_and_an_invalid_example(source_type: str) -> None:
    assert source_type in get_declared_types("valid"), "step 4: add an example to tests/examples/valid"
    assert source_type in get_declared_types("invalid"), "step 4: add its mistakes to tests/examples/invalid"


@each_source_type
def test_a_source_type_has_a_section_in_the_docs(source_type: str) -> None:
    assert f"### `type: {source_type}`\n" in (ROOT / "docs" / "tenants.md").read_text(), "step 5: add its section to docs/tenants.md"


@each_source_type
def test_a_source_type_is_in_the_published_schema(source_type: str) -> None:
    schema = json.loads((ROOT / "schemas" / "tenant.schema.json").read_text())
    declared = {definition["properties"]["type"].get("const") for definition in schema["$defs"].values() if "type" in definition.get("properties", {})}
    assert source_type in declared, "step 5: run `fabric schema --out schemas/tenant.schema.json`"


# --- destinations: what asks a type by name must change with each new one (house rule 5)

DESTINATIONS = get_args(get_args(AnyDestination)[0])
DESTINATION_TYPES = [get_args(model.model_fields["type"].annotation)[0] for model in DESTINATIONS]
DESTINATION_CLASSES = {model.__name__ for model in DESTINATIONS}
# Where the same words mean something else: the models themselves, the dialects of sources, a database's name, a setting of a server.
OTHER_MEANINGS = ("config/", "connectors/", "naming.py", "cli/validation/stream_warnings.py", "security/postgres_session.py", "security/roles/role_drift.py")
MOST_NAMED = 20


def find_destination_names(module: Path) -> Iterator[str]:
    """Lines that name a destination type, or compare one."""
    for node in ast.walk(read_tree(module)):
        named = isinstance(node, ast.Constant) and node.value in DESTINATION_TYPES
        named |= isinstance(node, ast.Name) and node.id in DESTINATION_CLASSES
        named |= isinstance(node, ast.Attribute) and node.attr in DESTINATION_CLASSES
        compared = [node.left, *node.comparators] if isinstance(node, ast.Compare) else [node.subject] if isinstance(node, ast.Match) else []
        if named or any(re.search(r"destination(\.type|\['type'\])$", ast.unparse(side)) for side in compared):
            yield f"{name(module)}:{node.lineno}"  # type: ignore[attr-defined]


def test_nothing_above_the_warehouse_and_the_drivers_asks_for_a_destination_by_name() -> None:
    found = {line for module in MODULES for line in find_destination_names(module)}
    inside = {line for line in found if line.startswith(("fabric_assets/warehouse/", "fabric_assets/drivers/"))}
    other = {line for line in found if line.removeprefix("fabric_assets/").startswith(OTHER_MEANINGS)}
    assert found - inside - other == set(), "ask for a capability that drivers/kinds.py declares"
    assert 0 < len(inside) < MOST_NAMED


def test_the_kinds_are_exactly_the_declared_destination_types() -> None:
    assert sorted(KINDS) == sorted(DESTINATION_TYPES), "step 2: name the type in drivers/kinds.py"


def test_a_destination_type_runs_the_contract_suite() -> None:
    held = {destination.type for destination in contract.DESTINATIONS.values()}
    assert held == set(DESTINATION_TYPES), "step 5: name a class of each type in tests/contract/kinds.py; step 1: add its model to AnyDestination"


@pytest.mark.parametrize("destination_type", DESTINATION_TYPES)
def test_a_destination_type_has_each_module_that_its_kind_names(destination_type: str) -> None:
    kind = KINDS[destination_type]
    adapter = f"fabric_assets.transform.worker.adapters.{kind.dbt_adapter}"
    wanted = [
        (kind.driver, "open_destination"), (kind.driver, "explain_damage"), (kind.sessions, "open_sessions"), (kind.walls, "try_walls"), (adapter, "ADAPTER")
    ]  # fmt: skip
    missing = [f"{module.replace('.', '/')}.py with {name}" for module, name in wanted if not hasattr(import_if_there(module), name)]
    assert missing == [], "step 3: write these modules"


@pytest.mark.parametrize("destination_type", DESTINATION_TYPES)
def test_the_classes_of_a_destination_type_have_every_abstract_method(destination_type: str) -> None:
    kind = KINDS[destination_type]
    modules = (kind.driver, kind.sessions, kind.walls, f"fabric_assets.transform.worker.adapters.{kind.dbt_adapter}")
    missing = {
        f"{module}.{name}": sorted(made.__abstractmethods__)
        for module in modules
        for name, made in inspect.getmembers(import_if_there(module), inspect.isabstract)
        if made.__module__ == module
    }
    assert missing == {}, "step 3: write these methods"


def import_if_there(module: str) -> ModuleType | None:
    return import_module(module) if importlib.util.find_spec(module) else None


def test_no_pattern_repeats_a_group_possessively() -> None:
    """Python before 3.11.5, which Debian 12 has, matches `(ab|c)*+` wrong (gh-106052): `(?>(ab|c)*)` says the same."""
    found = [f"{path.name}: {line.strip()}" for path in MODULES for line in path.read_text().splitlines() if re.search(r"\)(?:[*+?]|\{[^}]*\})\+[^+ ]", line)]
    assert found == []
