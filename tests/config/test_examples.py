"""tests/examples: each invalid file begins with the errors that it must give, each valid one must load; a new rule is a new file."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from fabric_assets.config.base import FabricModel
from fabric_assets.config.loader import Problem, load_fleet
from fabric_assets.config.schema import build_schema, get_described_properties
from fabric_assets.config.tenant import TenantConfig
from fabric_assets.settings import Settings

EXAMPLES = Path(__file__).parents[1] / "examples"
VALID, INVALID = EXAMPLES / "valid", EXAMPLES / "invalid"
SCHEMA = Path(__file__).parents[2] / "schemas" / "tenant.schema.json"
SINGLE = sorted(INVALID.glob("*.yaml"))
FOLDERS = sorted(path for path in INVALID.iterdir() if path.is_dir())

# Rules between keys, and between files: JSON Schema cannot say them, or only in words that no editor could show.
BEYOND_JSON_SCHEMA = {
    *("acme_staging", "pg_catalog", "public", "tenant_is_not_the_file"),
    *("yaml_anchor_and_alias", "yaml_merge_key", "template_unknown", "timezone_misspelt", "timezone_is_a_path", "yaml_norway"),
    *(
        "secret_file_climbs",
        "secret_file_absolute",
        "secret_file_of_the_platform",
        "secret_from_the_inbox",
        "secret_of_the_platform",
        "secret_of_the_platforms_name",
        "secret_of_dagsters_database",
        "source_timeout_of_no_time",
        "files_path_climbs",
        "files_path_of_the_platform",
        "files_path_unknown_scheme",
    ),
    *("files_encoding_unknown", "files_delimiter_a_quote", "files_header_names_twice", "files_header_without_the_key", "files_header_of_json"),
    *("files_skip_rows_of_parquet", "files_encoding_of_parquet"),
    *("deletes_path_of_a_child", "deletes_path_without_mode", "deletes_path_on_another_host", "deletes_param_with_credential"),
    *("files_glob_climbs", "files_credentials_for_a_folder", "api_header_with_credential", "api_param_with_credential"),
    *("merge_without_key", "append_without_cursor", "append_with_lag", "replace_with_cursor", "cursor_without_key"),
    *("key_names_a_column_twice", "columns_named_twice", "rename_taken", "rename_twice", "columns_leave_out_the_key", "source_name_makes_a_long_name"),
    *("api_path_on_another_host", "api_path_without_parent", "api_parent_unknown", "api_parents_in_a_circle", "api_two_parents"),
    *("api_origin_with_path", "api_param_with_unknown_parent", "api_param_like_a_placeholder", "api_encoding_unknown"),
    *("api_paginator_ends_twice", "api_end_status_with_total"),
    *("api_child_with_cursor", "api_child_forgets_rows", "api_field_of_no_parent", "check_of_an_unknown_stream", "check_without_layer"),
    *("check_row_count_without_bounds", "check_row_count_bounds_crossed", "source_row_count_of_files"),
    *("deletes_hard_without_max", "deletes_of_replace", "deletes_of_append"),
    *("tap_argument_is_a_credential", "tap_setting_twice", "tap_folder_of_the_platform", "tap_cursor_of_a_full_table"),
    *("airbyte_cursor_of_a_full_table", "key_is_a_dlt_argument", "tap_stream_twice"),
    *("cron_out_of_range", "cron_day_that_never_comes", "cron_bad_step"),
    *("schedule_target_unknown_source", "schedule_target_unknown_stream", "target_with_the_tenant"),
    *("import_path_climbs", "import_credentials_of_folder", "import_glob_climbs", "import_glob_absolute"),
    *("import_encoding_unknown", "import_header_row_twice", "import_header_unknown"),
    *("import_without_columns", "import_mapping_twice", "import_mapping_unknown", "import_key_is_no_column", "import_replace"),
    *("import_format_unknown", "import_format_without_year", "import_format_with_time", "import_formats_of_a_number"),
    *("import_timezone_misspelt", "import_timezone_of_a_date", "import_bound_without_offset", "import_min_is_no_date", "import_min_above_max"),
    *("isolation_of_your_own_login", "limits_of_your_own_login", "limits_of_no_statement", "limits_of_no_temp_files"),
    *("publish_raw", "publish_platform_tables"),
    *("import_max_of_a_text", "import_accepted_of_a_number", "import_pattern_of_a_number", "import_pattern_unclosed", "import_pattern_looks_ahead"),
}


def load(folder: Path) -> dict[str, tuple[Problem, ...]]:
    return load_fleet(settings_of(folder)).broken


def settings_of(folder: Path) -> Settings:
    return Settings(folder, folder / "dbt_project", folder / "data")


def read_expected(file: Path) -> list[str]:
    return re.findall(r"^# expect: (.*)$", file.read_text("utf-8"), re.MULTILINE)


def write(problem: Problem) -> str:
    return f"{problem.line}:{problem.column}: " + (f"{problem.path}: " if problem.path else "") + problem.message


@pytest.fixture(scope="module")
def broken() -> dict[str, tuple[Problem, ...]]:
    return load(INVALID)


@pytest.mark.parametrize("file", SINGLE, ids=lambda path: path.stem)
def test_an_invalid_file_gives_exactly_the_errors_it_names(file: Path, broken: dict[str, tuple[Problem, ...]]) -> None:
    assert read_expected(file), "an example begins with `# expect: LINE:COLUMN: path: message`"
    assert [write(problem) for problem in broken[file.stem]] == read_expected(file)
    assert {problem.file for problem in broken[file.stem]} == {file}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_an_invalid_folder_gives_exactly_the_errors_its_files_name(folder: Path) -> None:
    expected = {(file, line) for file in folder.rglob("*.y*ml") for line in read_expected(file)}
    assert expected
    assert {(problem.file, write(problem)) for problems in load(folder).values() for problem in problems} == expected


def test_there_are_as_many_invalid_examples_as_the_project_promises() -> None:
    assert len(SINGLE) + len(FOLDERS) >= 60


def test_no_example_shows_the_password_it_holds(broken: dict[str, tuple[Problem, ...]]) -> None:
    holding = [file.stem for file in SINGLE if "hunter2" in file.read_text("utf-8")]
    assert len(holding) >= 8
    assert "hunter2" not in "\n".join(str(problem) for problems in broken.values() for problem in problems)


def test_the_valid_examples_load() -> None:
    fleet = load_fleet(settings_of(VALID))
    assert fleet.broken == {}
    assert set(fleet.tenants) == {file.stem for file in VALID.glob("[a-z]*.yaml")}


def test_the_valid_examples_use_every_key_of_the_format() -> None:
    used = {key for loaded in load_fleet(settings_of(VALID)).tenants.values() for key in get_used_keys(loaded.config)}
    known = {f"{model.__name__}.{name}" for model in get_format_models() for name in model.__annotations__ if name in model.model_fields}
    assert len(known) > 80
    assert known - used == set()


def get_format_models() -> list[type[FabricModel]]:
    """The models that a tenant's YAML is made of, and their bases."""
    named = {TenantConfig.__name__, *TenantConfig.model_json_schema()["$defs"]}
    return [model for model in get_models(FabricModel) if named & {part.__name__ for part in (model, *get_models(model))}]


def get_models(base: type[FabricModel]) -> Iterator[type[FabricModel]]:
    for model in base.__subclasses__():
        yield model
        yield from get_models(model)


def get_used_keys(value: object) -> Iterator[str]:
    """Yield the keys that the YAML sets, each with the model that declares it."""
    if isinstance(value, BaseModel):
        for name in value.model_fields_set:
            declaring = next(model for model in type(value).__mro__ if name in model.__annotations__)
            yield f"{declaring.__name__}.{name}"
            yield from get_used_keys(getattr(value, name))
    elif isinstance(value, dict | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from get_used_keys(item)


def check_json_schema(*files: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "check_jsonschema", "--output-format", "json", "--schemafile", str(SCHEMA), *map(str, files)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)


def test_editors_accept_every_valid_example_and_the_demo() -> None:
    demo = Path(__file__).parents[2] / "tenants"
    files = [*VALID.glob("[a-z]*.yaml"), *demo.glob("[a-z]*.yaml")]
    assert len(files) >= 8
    assert check_json_schema(*files) == {"status": "ok", "errors": []}


def test_editors_refuse_every_invalid_example_that_a_schema_can_refuse() -> None:
    result = check_json_schema(*SINGLE)
    refused = {Path(item["filename"]).stem for key in ("errors", "parse_errors") for item in result[key]}  # type: ignore[attr-defined]
    assert {file.stem for file in SINGLE} - refused == BEYOND_JSON_SCHEMA


def test_the_schema_is_a_valid_json_schema() -> None:
    run = subprocess.run([sys.executable, "-m", "check_jsonschema", "--check-metaschema", str(SCHEMA)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout


def test_the_schema_file_equals_the_models() -> None:
    assert SCHEMA.read_text("utf-8") == json.dumps(build_schema(), indent=2) + "\n", "run `fabric schema --out schemas/tenant.schema.json`"


def test_the_schema_describes_every_key() -> None:
    assert [key for key, text in get_described_properties(build_schema()).items() if not text] == []
