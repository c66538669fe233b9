"""The list of libraries' private parts is whole, says nothing that is not so, and holds for the versions that are installed."""

import ast
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fabric_assets import private_parts
from fabric_assets.connectors.sql_database import mysql_reader
from fabric_assets.private_parts import PARTS, VERIFIED, get_version, is_verified

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "fabric_assets"
# Modules that their libraries do not document, though no name of them has an underscore.
UNDOCUMENTED = ("dagster_shared.", "dbt.", "dbt_common.", "dlt.common.", "dlt.sources.helpers.rest_client.detector.", "pymysql.protocol.", "yaml.cyaml.")
DOCUMENTED = ("dbt.cli.main.",)


def find_uses(package: Path) -> Iterator[tuple[str, str]]:
    """Yield each module with a private part of a library in it: an import, an attribute that the package itself does not define, a patch."""
    trees = {file.relative_to(package).as_posix(): ast.parse(file.read_text()) for file in sorted(package.rglob("*.py"))}
    own = {name for tree in trees.values() for name in list_defined(tree)}
    for module, tree in trees.items():
        foreign = {alias: name for name, alias in list_imports(tree)}
        yield from ((module, name) for name in foreign.values() if is_private(name))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                base = node.value.id if isinstance(node.value, ast.Name) else ""
                is_hidden = node.attr.startswith("_") and not node.attr.startswith("__") and node.attr not in own and base != "os"
                if is_hidden or (isinstance(node.ctx, ast.Store) and base in foreign):
                    yield module, node.attr


def list_imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [(f"{node.module}.{each.name}", each.asname or each.name) for each in node.names]
        elif isinstance(node, ast.Import):
            names = [(each.name, each.asname or each.name.partition(".")[0]) for each in node.names]
        yield from (pair for pair in names if (top := pair[0].partition(".")[0]) != "fabric_assets" and top not in sys.stdlib_module_names)


def is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split(".")) or (name.startswith(UNDOCUMENTED) and not name.startswith(DOCUMENTED))


def list_defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}:
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_every_private_part_that_is_used_is_in_the_list() -> None:
    listed = {(entry.module, part) for entry in PARTS for part in entry.parts}
    missing = sorted(set(find_uses(PACKAGE)) - listed)
    assert missing == [], "use what the library documents, or add it to PARTS in fabric_assets/private_parts_list.py with a test"


def test_every_part_in_the_list_is_used() -> None:
    unused = [(entry.module, part) for entry in PARTS for part in entry.parts if part.rpartition(".")[2] not in (PACKAGE / entry.module).read_text()]
    assert unused == []
    assert [entry.tests for entry in PARTS if not (ROOT / entry.tests).exists()] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from dagster._core.x import Y", "dagster._core.x.Y"),
        ("import duckdb._duckdb", "duckdb._duckdb"),
        ("from dbt.parser import z", "dbt.parser.z"),
        ("def f(cursor): return cursor._executed", "_executed"),
        ("import pyarrow as pa\npa.lib = None", "lib"),
    ],
)
def test_a_new_private_part_is_found(tmp_path: Path, source: str, found: str) -> None:
    (tmp_path / "new.py").write_text(f"from dbt.cli.main import dbtRunner\nimport dagster as dg\n{source}\n")
    assert list(find_uses(tmp_path)) == [("new.py", found)]


@pytest.mark.parametrize("library", VERIFIED)
def test_the_installed_version_is_one_that_was_verified(library: str) -> None:
    look = [f"fabric_assets/{entry.module} ({entry.tests}): {', '.join(entry.parts)}" for entry in PARTS if entry.distribution == library]
    assert look, f"{library} is in VERIFIED, and nothing of it is used"
    assert (installed := get_version(library)) is not None
    assert installed.startswith(VERIFIED[library]), "\n".join(
        [f"{library} {installed} was not verified: look at these, run their tests, then add the version to VERIFIED in private_parts.py", *look]
    )


def test_every_library_of_the_list_has_its_versions() -> None:
    assert {entry.distribution for entry in PARTS} == VERIFIED.keys()


def test_an_unknown_version_is_warned_of_once_and_takes_the_public_way(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(private_parts, "get_version", lambda library: "9.0.1")
    is_verified.cache_clear()
    try:
        with caplog.at_level(logging.WARNING, logger="fabric_assets.private_parts"):
            assert [mysql_reader.has_known_parts(), mysql_reader.has_known_parts()] == [False, False]
    finally:
        is_verified.cache_clear()
    (record,) = caplog.records
    assert record.getMessage() == ("pymysql 9.0.1 is not among the versions that ETL Fabric was verified against (1.2.x): rows are read by SQLAlchemy, slower")
