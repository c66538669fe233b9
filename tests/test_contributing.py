"""CONTRIBUTING's recipes: each has at most six steps, and each step of one has a test that names it."""

import ast
import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import typer.main

from fabric_assets.cli.app import app
from fabric_assets.config.checks import AnyCheck, get_check_name
from fabric_assets.config.schema import build_schema

ROOT = Path(__file__).resolve().parent.parent
RECIPES = dict(re.findall(r"^## (Add a .+?)\n(.+?)(?=^## |\Z)", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE | re.DOTALL))


def test_there_is_a_recipe_for_each_part_that_is_often_added() -> None:
    assert set(RECIPES) >= {"Add a source type", "Add a destination type", "Add a check type", "Add a command"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_at_most_six_steps(recipe: str) -> None:
    numbers = re.findall(r"^(\d+)\. ", RECIPES[recipe], re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert 3 <= len(numbers) <= 6


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_file_that_a_recipe_names_exists(recipe: str) -> None:
    named = [path for path in re.findall(r"`([\w/]+(?:\.\w+|/))`", RECIPES[recipe]) if "/" in path]
    assert named
    assert [path for path in named if not any((root / path).exists() for root in (ROOT, ROOT / "fabric_assets"))] == []


# --- a check type

CHECK_TYPES = {get_args(model.model_fields["type"].annotation)[0]: model.__name__ for model in get_args(get_args(AnyCheck)[0])}
each_check_type = pytest.mark.parametrize("check_type", CHECK_TYPES)


@each_check_type
@pytest.mark.parametrize("field", ["column", "columns"])
def test_a_check_that_names_columns_is_named_after_them(check_type: str, field: str) -> None:
    (model,) = (model for model in get_args(get_args(AnyCheck)[0]) if model.__name__ == CHECK_TYPES[check_type])
    if field in model.model_fields:
        check = model.model_construct(type=check_type, **{field: "amount" if field == "column" else ["amount"]})
        assert get_check_name(check, [check]) == f"{check_type}_amount", "step 1: add it to _base_name in fabric_assets/config/checks.py"


def test_the_published_schema_is_the_one_that_the_code_builds() -> None:
    schema = json.loads((ROOT / "schemas" / "tenant.schema.json").read_text())
    assert (schema == build_schema()) is True, "run `scripts/uv run fabric schema --out schemas/tenant.schema.json`"


@each_check_type
def test_a_check_type_has_its_branch(check_type: str) -> None:
    tree = ast.parse((ROOT / "fabric_assets" / "loading" / "checks.py").read_text())
    branches = {node.cls.id for node in ast.walk(tree) if isinstance(node, ast.MatchClass) and isinstance(node.cls, ast.Name)}
    assert CHECK_TYPES[check_type] in branches, "step 2: give it a branch in fabric_assets/loading/checks.py"


@each_check_type
@pytest.mark.parametrize("folder", ["valid", "invalid"])
def test_a_check_type_has_examples(check_type: str, folder: str) -> None:
    files = (ROOT / "tests" / "examples" / folder).rglob("*.yaml")
    assert any(re.search(rf"\btype: *{check_type}\b", file.read_text(encoding="utf-8", errors="ignore")) for file in files), (
        f"step 3: add an example of it to tests/examples/{folder}"
    )


@each_check_type
def test_a_check_type_is_run_by_the_tests_of_checks(check_type: str) -> None:
    assert check_type in (ROOT / "tests" / "loading" / "test_checks.py").read_text(), "step 4: run it in tests/loading/test_checks.py"


@each_check_type
def test_a_check_type_is_in_the_published_schema(check_type: str) -> None:
    schema = json.loads((ROOT / "schemas" / "tenant.schema.json").read_text())
    assert CHECK_TYPES[check_type] in schema["$defs"], "step 5: run `fabric schema --out schemas/tenant.schema.json`"


# --- a command


def list_commands(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    if not hasattr(command, "commands"):
        return [(path, command)]
    return [found for name, inner in command.commands.items() for found in list_commands(inner, (*path, name))]


COMMANDS = dict(list_commands(typer.main.get_command(app)))
each_command = pytest.mark.parametrize("path", COMMANDS, ids=" ".join)


@each_command
def test_a_command_says_what_it_does(path: tuple[str, ...]) -> None:
    command = COMMANDS[path]
    assert command.help, "step 3: its docstring is its help"
    assert [option.name for option in command.params if not getattr(option, "help", None)] == [], "step 3: each argument and option has a help text"


@each_command
def test_a_command_is_run_by_a_test(path: tuple[str, ...]) -> None:
    whole, last = (r",\s*".join(rf'"{word}"' for word in words) for words in (path, path[-1:]))
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if file.name not in {"test_contributing.py", "test_docs.py"}]
    # The tests of a family of commands, such as `fabric imports`, name the family once.
    found = [file for file in files if re.search(last if file.name == f"test_{path[0]}.py" else whole, file.read_text())]
    assert found, "step 4: run it in a test below tests/cli"
