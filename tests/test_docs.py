"""The docs say what is true: examples validate, commands exist, every key, setting and command is there, decisions keep their form."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import typer
import typer.main
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.config.connectors_file import load_connectors
from fabric_assets.config.loader import load_fleet
from fabric_assets.settings import load_settings
from fabric_assets.transform.evaluation import prepare_graph
from fabric_assets.transform.fleet import validate_fleet
from scripts.reference import REFERENCES, build_page, get_commands, get_models

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted(DOCS.glob("*.md"))]
DECISIONS = sorted((DOCS / "adr").glob("*.md"))
DEMO_TENANTS = ("demo_database", "demo_files", "demo_api", "demo_connectors", "demo_ads")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
each_decision = pytest.mark.parametrize("decision", DECISIONS, ids=lambda decision: decision.stem)


def get_blocks(language: str) -> list[str]:
    return [block for page in PAGES for block in re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)]


# --- examples


def test_every_yaml_example_is_a_valid_tenant(tmp_path: Path, prepared_data: Path) -> None:
    shutil.copytree(prepared_data, tmp_path / "data" / "dbt" / "prepared")
    examples = [example for example in get_blocks("yaml") if not example.startswith("# connectors.yaml")]
    for number, example in enumerate(examples):
        name = re.match(r"# tenants/([a-z_]+)\.yaml\n", example)
        assert name, f"the first line of an example is its file, `# tenants/<name>.yaml`:\n{example}"
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / f"{name[1]}.yaml").write_text(example)
        settings = load_settings({"FABRIC_TENANTS_DIR": str(tmp_path / f"{number}"), "FABRIC_DATA_DIR": str(tmp_path / "data")}, root=ROOT)
        fleet = load_fleet(settings)
        if any(loaded.config.transform for loaded in fleet.tenants.values()):
            fleet = validate_fleet(fleet, prepare_graph([loaded.config for loaded in fleet.tenants.values()], settings))
        assert [str(problem) for problems in fleet.broken.values() for problem in problems] == []
        assert list(fleet.tenants) == [name[1]]
    assert len(examples) >= 5


def test_every_list_of_connectors_in_an_example_is_valid(tmp_path: Path) -> None:
    examples = [example for example in get_blocks("yaml") if example.startswith("# connectors.yaml")]
    for example in examples:
        (tmp_path / "connectors.yaml").write_text(example)
        assert load_connectors(load_settings({"FABRIC_CONNECTORS": str(tmp_path / "connectors.yaml")}, root=ROOT))
    assert examples


def get_command_lines() -> list[str]:
    return [line.removeprefix("$ ") for block in get_blocks("console") for line in block.splitlines() if line.startswith("$ ")]


@pytest.mark.parametrize("line", [line for line in get_command_lines() if line.startswith("fabric ")])
def test_a_command_in_an_example_is_one_that_the_program_takes(line: str) -> None:
    command: Any = typer.main.get_command(app)
    arguments = shlex.split(line)[1:]
    context = typer.Context(command, info_name="fabric")
    while hasattr(command, "commands"):
        name, command, arguments = command.resolve_command(context, arguments)
        assert command is not None, f"no command {name}"
        context = typer.Context(command, info_name=name, parent=context)
    command.parse_args(context, list(arguments))


def test_every_make_target_in_the_docs_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {target for page in [*PAGES, *DECISIONS] for target in re.findall(r"(?:`|\$ )make ([a-z-]+)", page.read_text())}
    assert named - targets == set()
    assert {"demo", "dev", "test", "check"} <= named


# --- the README


def test_the_readme_shows_what_make_demo_prints_for_each_tenant() -> None:
    shown = re.search(r"<!-- demo output.*?-->\n```text\n(.*?)```\n<!-- end -->", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown
    for tenant in DEMO_TENANTS:
        assert re.search(rf"^{tenant} .*\d", shown[1], re.MULTILINE), f"paste the output of `make demo`: {tenant} is missing"


def test_the_readme_shows_the_lineage_graph() -> None:
    picture = re.search(r"!\[.+\]\((docs/images/.+\.png)\)", (ROOT / "README.md").read_text())
    assert picture
    assert (ROOT / picture[1]).read_bytes().startswith(b"\x89PNG"), "take the screenshot of a tenant's asset graph"


def test_every_picture_is_shown_and_every_shown_picture_is_there() -> None:
    shown = {(page.parent / path).resolve() for page in PAGES for path in re.findall(r"!\[.+?\]\((?!https?://)(.+?)\)", page.read_text())}
    assert shown == {path.resolve() for path in (DOCS / "images").iterdir()}


def get_anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    return {*headings, *re.findall(r'<a id="(.+?)">', text)}


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_the_target_of_every_link_exists(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if re.match(r"https?://", link) or link.endswith(".png"):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page if not path else page.parent / path
        if not target.exists() or (anchor and anchor not in get_anchors(target)):
            broken.append(link)
    assert broken == []


# --- reference pages


@pytest.mark.parametrize("page", REFERENCES, ids=lambda page: page.name)
def test_the_generated_tables_say_what_the_code_says(page: Path) -> None:
    assert page.read_text() == build_page(page.read_text()), "run `make reference`"


@pytest.mark.parametrize("name", sorted(get_models()))
def test_every_part_of_a_tenant_is_in_the_reference_with_a_meaning_for_each_key(name: str) -> None:
    count = (DOCS / "tenants.md").read_text().count(f"<!-- fields: {name} -->")
    assert count == 1, f"add a section to docs/tenants.md with `<!-- fields: {name} -->` and `<!-- end -->`, once; it is there {count} times"
    assert [key for key, field in get_models()[name].model_fields.items() if not field.description] == []


def get_type_words() -> list[str]:
    """Every word that `type:` may take: sources, checks, paginators, logins, destinations."""
    fields = [model.model_fields["type"] for model in get_models().values() if "type" in model.model_fields]
    return sorted(str(field.annotation.__args__[0]) for field in fields)  # type: ignore[union-attr]


@pytest.mark.parametrize("word", get_type_words())
def test_every_type_is_in_the_reference(word: str) -> None:
    is_named = f"`type: {word}`" in (DOCS / "tenants.md").read_text()
    assert is_named, f"add a section to docs/tenants.md that begins with `type: {word}` in backticks"


@pytest.mark.parametrize("name", sorted(get_commands()))
def test_every_command_is_in_the_reference_and_has_help(name: str) -> None:
    assert f"\n## {name}\n\n<!-- command: {name} -->\n" in (DOCS / "cli.md").read_text()
    command = get_commands()[name]
    assert command.help
    parameters = command.get_params(typer.Context(command))
    assert [parameter.name for parameter in parameters if not parameter.help] == []


@pytest.mark.parametrize("name", sorted(get_commands()))
def test_every_command_shows_its_help(name: str) -> None:
    result = CliRunner().invoke(app, [*name.split()[1:], "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def test_every_setting_is_documented_and_every_documented_setting_is_read() -> None:
    pattern = re.compile(r"\bFABRIC_[A-Z_]+\b")
    settings = set(pattern.findall((ROOT / "fabric_assets" / "settings.py").read_text()))
    table = {
        match for line in (DOCS / "settings.md").read_text().splitlines() if line.startswith("| `FABRIC_") for match in pattern.findall(line.split("|")[1])
    }
    assert table == settings
    assert set(pattern.findall((ROOT / ".env.example").read_text())) == settings


def test_every_setting_of_the_tests_is_documented() -> None:
    pattern = re.compile(r"\bFABRIC_TEST_[A-Z_]+\b")
    read = {name for file in (ROOT / "tests").rglob("*.py") if file.name != Path(__file__).name for name in pattern.findall(file.read_text())}
    assert read == set(pattern.findall((DOCS / "settings.md").read_text()))


def test_the_defaults_of_the_settings_are_as_documented() -> None:
    settings = load_settings({}, root=ROOT)
    rows = dict(re.findall(r"^\| `(FABRIC_\w+)` \| `?([^`|]+?)`? \|", (DOCS / "settings.md").read_text(), re.MULTILINE))
    shown = {
        "FABRIC_TENANTS_DIR": str(settings.tenants_dir.relative_to(ROOT)),
        "FABRIC_DBT_PROJECT_DIR": str(settings.dbt_project_dir.relative_to(ROOT)),
        "FABRIC_DATA_DIR": str(settings.data_dir.relative_to(ROOT)),
        "FABRIC_PUBLISH_DIR": str(settings.publish_dir.relative_to(ROOT)) if settings.publish_dir else "",
        "FABRIC_CONNECTORS": str(settings.connectors.relative_to(ROOT)),
        "FABRIC_CONNECTORS_DIR": str(settings.connectors_dir.relative_to(ROOT)) if settings.connectors_dir else "",
        "FABRIC_SOURCE_DIRS": "any" if not settings.source_dirs else "",
        "FABRIC_TENANTS": "all" if settings.tenants == ("*",) else "",
        "FABRIC_LOCATION": settings.location,
        "FABRIC_STRICT": str(int(settings.strict)),
        "FABRIC_DEFINITIONS": settings.definitions or "none",
        "FABRIC_SECRET_KEYS": "none" if not settings.secret_keys else "",
        "FABRIC_PROVISION_URL": "none",
    }
    assert rows == shown


@pytest.mark.parametrize("script", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda script: script.name)
def test_every_benchmark_compiles(script: Path) -> None:
    compile(script.read_text(), str(script), "exec")


def test_every_figure_names_a_script_that_exists_and_has_a_result() -> None:
    rows = [line.split("|") for line in (DOCS / "performance.md").read_text().splitlines() if "`benchmarks/" in line]
    assert rows
    for row in rows:
        assert (ROOT / row[2].strip(" `")).is_file()
        assert re.search(r"\d", row[4]), f"{row[1].strip()}: run {row[2].strip()} and write down the result"


# --- decisions


@each_decision
def test_a_decision_has_its_four_parts_on_at_most_forty_lines(decision: Path) -> None:
    text = decision.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences", "Verified against"]
    assert text.startswith(f"# {decision.stem[:4]} ")
    assert len(text.splitlines()) <= 40
    assert re.search(r"\d+\.\d+", text.split("## Verified against")[1]), "name the versions"


def test_no_two_decisions_have_one_number() -> None:
    numbers = [int(decision.stem[:4]) for decision in DECISIONS]
    assert numbers == sorted(set(numbers))


def test_every_decision_that_the_code_names_exists() -> None:
    files = [*(ROOT / "fabric_assets").rglob("*.py"), *PAGES, *DECISIONS]
    named = {number for file in files for number in re.findall(r"ADR (\d{4})", file.read_text())}
    assert named <= {decision.stem[:4] for decision in DECISIONS}


# --- words


@each_page
def test_a_page_has_no_line_that_a_reader_must_scroll(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    long = [line for line in prose.splitlines() if len(line) > 160 and not line.startswith("|")]
    assert long == []


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n" in text
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
