"""`fabric validate`, `schema`, `list`, `explain` as a user calls them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fabric_assets.cli.app import app
from fabric_assets.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
Write = Callable[..., Path]
Run = Callable[..., subprocess.CompletedProcess[str]]

ACME = """\
version: 1
tenant: acme
display_name: Acme Outdoor
owners: ["team:growth"]
sources:
  shop:
    type: sql_database
    url: {secret: shop_url}
    streams:
      orders: {primary_key: id, cursor: {field: updated_at, lag: 5m}}
checks:
  raw/shop/orders: [{type: row_count, min: 1}]
schedules:
  nightly: {cron: "0 3 * * *", target: [raw/shop]}
"""
BROKEN = """\
version: 1
tenant: globex
owner: ["team:growth"]
destination: {type: postgres, url: "postgresql://etl:hunter2@db/x"}
"""


@pytest.fixture
def fabric(settings_environ: Mapping[str, str]) -> Run:
    """Call the command line in this process, its two outputs apart."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        result = CliRunner().invoke(app, list(arguments))
        if isinstance(result.exception, ConfigurationError):  # main() turns these into a message and 2
            return subprocess.CompletedProcess(arguments, 2, result.stdout, str(result.exception))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="module")
def parsed_project(tmp_path_factory: pytest.TempPathFactory, prepared_data: Path) -> Path:
    """A data folder in which dbt has parsed the project: once for all that only read the graph."""
    data = tmp_path_factory.mktemp("data")
    shutil.copytree(prepared_data, data / "dbt" / "prepared")
    return data


class TestValidate:
    def test_tenants_without_mistakes_exit_with_0(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("acme", ACME)
        done = fabric("validate")
        assert (done.returncode, done.stdout) == (0, "1 of 1 tenants are fine\n")

    def test_each_mistake_is_printed_with_its_line_and_a_caret(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("acme", ACME)
        file = write_tenant("globex", BROKEN)
        done = fabric("validate")
        assert done.returncode == 2
        assert f"{file}:3:1: owner: unknown key 'owner'; did you mean 'owners'? known: checks, " in done.stdout
        assert '    owner: ["team:growth"]\n    ^\n' in done.stdout
        assert f"{file}:4:36: destination.url: must be a reference, never the value itself" in done.stdout
        assert "hunter2" not in done.stdout + done.stderr
        assert done.stdout.endswith("1 of 2 tenants are fine; 2 problems found\n")

    def test_json_has_the_form_of_the_contract(self, fabric: Run, write_tenant: Write) -> None:
        file = write_tenant("globex", BROKEN)
        done = fabric("validate", "--json")
        problems = json.loads(done.stdout)
        assert done.returncode == 2
        assert [(problem["file"], problem["line"], problem["column"], problem["path"]) for problem in problems] == [
            (str(file), 3, 1, "owner"),
            (str(file), 4, 36, "destination.url"),
        ]
        assert all(set(problem) == {"file", "line", "column", "path", "message"} for problem in problems)

    def test_json_of_no_mistakes_is_an_empty_list(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("acme", ACME)
        done = fabric("validate", "--json")
        assert (done.returncode, json.loads(done.stdout)) == (0, [])

    def test_only_the_tenants_that_are_named_are_checked(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("acme", ACME)
        write_tenant("globex", BROKEN)
        assert fabric("validate", "acme").returncode == 0
        assert fabric("validate", "glo*").returncode == 2
        assert fabric("validate", "--all").returncode == 2

    def test_a_part_of_the_fleet_without_tenants_yet_is_fine(self, fabric: Run, write_tenant: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        write_tenant("acme", ACME)
        monkeypatch.setenv("FABRIC_TENANTS", "[n-z]*")
        done = fabric("validate")
        assert (done.returncode, done.stdout) == (0, "0 of 0 tenants are fine\n")

    def test_a_schedule_that_targets_models_of_a_tenant_without_any_is_a_mistake(self, fabric: Run, write_tenant: Write) -> None:
        file = write_tenant("acme", ACME.replace("[raw/shop]", "[raw/shop, +marts]"))
        done = fabric("validate")
        assert done.returncode == 2
        assert f"{file}:14:51: schedules.nightly.target.1: acme: the selection '+marts' matches no asset" in done.stdout

    def test_a_mistake_in_the_defaults_is_shown_once(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("_defaults", "timezone: Mars/Olympus\n")
        for name in ("acme", "globex", "initech"):
            write_tenant(name, {})
        done = fabric("validate")
        assert done.stdout.count("is no IANA time zone") == 1
        assert "0 of 3 tenants are fine; 1 problem found" in done.stdout

    def test_a_broken_template_that_nobody_uses_is_a_mistake(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("acme", ACME)
        write_tenant("_templates/old", "sources: [\n")
        assert fabric("validate").returncode == 2

    def test_an_unknown_tenant_gets_a_suggestion(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("acme", ACME)
        done = fabric("validate", "acm")
        assert done.returncode == 2
        assert "'acm' is no tenant here; did you mean 'acme'?" in done.stderr

    def test_a_missing_folder_is_wrong_usage(self, fabric: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FABRIC_TENANTS_DIR", "/nowhere")
        done = fabric("validate")
        assert done.returncode == 2
        assert "set FABRIC_TENANTS_DIR" in done.stderr


class TestValidateAgainstDbt:
    @pytest.fixture(autouse=True)
    def _tenants(self, write_tenant: Write) -> None:
        write_tenant("acme", ACME + "transform: {select: [staging.shop]}\n")
        write_tenant("globex", ACME.replace("acme", "globex") + "transform:\n  select: [staging.shp]\n")

    def test_models_and_selectors_are_checked_against_the_project(self, fabric: Run, parsed_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FABRIC_DATA_DIR", str(parsed_project))
        done = fabric("validate", "--json")
        problems = json.loads(done.stdout)
        assert done.returncode == 2
        assert {(Path(problem["file"]).stem, problem["path"].rpartition(".")[0] or problem["path"]) for problem in problems} == {
            ("acme", "transform"),
            ("globex", "transform.select"),
        }
        assert any("which tenant acme does not load" in problem["message"] for problem in problems)

    def test_a_project_that_cannot_be_parsed_is_a_problem_among_the_others(self, fabric: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        project = tmp_path / "no_project"
        project.mkdir()
        monkeypatch.setenv("FABRIC_DBT_PROJECT_DIR", str(project))
        done = fabric("validate", "--json")
        assert done.returncode == 2
        assert [problem["file"] for problem in json.loads(done.stdout)] == [str(project)]


class TestPrepare:
    def test_selections_are_evaluated_once_and_a_wrong_one_stops_no_other_tenant(
        self, fabric: Run, write_tenant: Write, parsed_project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("FABRIC_DATA_DIR", str(parsed_project))
        write_tenant("acme", ACME + "transform: {select: [stg_shop__orders]}\n")
        write_tenant("globex", ACME.replace("acme", "globex") + "transform: {select: [stg_shop__ordres]}\n")
        write_tenant("hooli", ACME.replace("acme", "hooli") + "transform: {select: [stg_shop__orders]}\n")
        done = fabric("prepare")
        assert (done.returncode, done.stdout) == (0, "packages: unchanged\nduckdb: unchanged\npostgres: unchanged\nselections: 2 evaluated\n")
        assert done.stderr == "1 wrong: globex; `fabric validate` says why\n"
        again = json.loads(fabric("prepare", "--json").stdout)
        assert again["adapters"] == {"duckdb": "unchanged", "postgres": "unchanged"}
        assert (again["selections_evaluated"], again["wrong"]) == (0, ["globex"])

    def test_the_image_of_a_container_is_prepared_without_tenants(self, fabric: Run, parsed_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("FABRIC_DATA_DIR", str(parsed_project))
        monkeypatch.setenv("FABRIC_TENANTS_DIR", str(parsed_project / "nowhere"))
        done = fabric("prepare")
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "selections: unchanged")


class TestSchema:
    def test_it_prints_the_schema_that_is_in_the_repository(self, fabric: Run) -> None:
        held = ROOT / "schemas" / "tenant.schema.json"
        assert fabric("schema").stdout == held.read_text("utf-8")

    def test_it_writes_a_file(self, fabric: Run, tmp_path: Path) -> None:
        out = tmp_path / "tenant.schema.json"
        done = fabric("schema", "--out", str(out))
        assert (done.returncode, done.stdout) == (0, "")
        assert json.loads(out.read_text("utf-8"))["$defs"]["Tenant"]["required"] == ["version", "tenant"]

    def test_a_folder_that_is_missing_is_wrong_usage(self, fabric: Run, tmp_path: Path) -> None:
        done = fabric("schema", "--out", str(tmp_path / "missing" / "x.json"))
        assert done.returncode == 2
        assert "cannot be written" in done.stderr


class TestList:
    @pytest.fixture(autouse=True)
    def _acme(self, write_tenant: Write) -> None:
        write_tenant("acme", ACME)

    @pytest.mark.parametrize(
        ("what", "row"),
        [
            (
                "tenants",
                {"tenant": "acme", "status": "ok", "display_name": "Acme Outdoor", "destination": "duckdb", "sources": 1, "streams": 1, "schedules": 1},
            ),
            ("sources", {"tenant": "acme", "source": "shop", "type": "sql_database", "streams": 1, "dataset": "acme_raw_shop"}),
            (
                "streams",
                {
                    "tenant": "acme",
                    "source": "shop",
                    "stream": "orders",
                    "asset": "acme/raw/shop/orders",
                    "write_disposition": "merge",
                    "primary_key": ["id"],
                    "cursor": "updated_at",
                },
            ),
            ("schedules", {"tenant": "acme", "schedule": "nightly", "cron": "0 3 * * *", "timezone": "UTC", "target": ["raw/shop"]}),
            (
                "checks",
                {"tenant": "acme", "asset": "acme/raw/shop/orders", "check": "row_count", "type": "row_count", "severity": "error", "blocking": False},
            ),
        ],
    )
    def test_rows_show_what_is_declared(self, what: str, row: dict[str, object], fabric: Run) -> None:
        done = fabric("list", what, "--json")
        # Every tenant has the check of its walls, whatever it declares.
        assert (done.returncode, [found for found in json.loads(done.stdout) if found.get("type") != "isolation"]) == (0, [row])

    def test_a_tenant_without_models_lists_no_models(self, fabric: Run) -> None:
        assert json.loads(fabric("list", "models", "--json").stdout) == []

    def test_the_table_has_a_line_per_row(self, fabric: Run) -> None:
        lines = fabric("list", "streams").stdout.splitlines()
        assert lines[0].split() == ["tenant", "source", "stream", "asset", "write", "disposition", "primary", "key", "cursor"]
        assert lines[1].split() == ["acme", "shop", "orders", "acme/raw/shop/orders", "merge", "id", "updated_at"]

    def test_broken_tenants_are_listed_as_such(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("globex", BROKEN)
        done = fabric("list", "tenants", "--json")
        assert [(row["tenant"], row["status"]) for row in json.loads(done.stdout)] == [("acme", "ok"), ("globex", "broken")]
        assert done.returncode == 2
        assert "1 broken: globex" in done.stderr

    def test_an_unknown_word_is_wrong_usage(self, fabric: Run) -> None:
        assert fabric("list", "stream").returncode == 2


def test_the_models_of_the_dbt_project_are_listed_with_their_tests(
    fabric: Run, write_tenant: Write, parsed_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FABRIC_DATA_DIR", str(parsed_project))
    streams = {name: {"primary_key": "id"} for name in ("customers", "stores", "products", "supplies", "orders", "items")}
    source = {"type": "sql_database", "url": {"env": "SHOP_URL"}, "streams": streams}
    write_tenant("acme", {"sources": {"shop": source}, "transform": {"select": ["staging.shop"]}})
    models = json.loads(fabric("list", "models", "--json").stdout)
    assert {row["asset"] for row in models} >= {"acme/staging/stg_shop__customers", "acme/staging/stg_shop__orders"}
    checks = json.loads(fabric("list", "checks", "acme", "--json").stdout)
    assert {row["type"] for row in checks} >= {"dbt data test", "dbt source freshness"}
    assert {row["asset"] for row in checks} <= {"acme/isolation", "acme/raw/shop/orders"} | {row["asset"] for row in models}


class TestExplain:
    @pytest.fixture(autouse=True)
    def _acme(self, write_tenant: Write) -> None:
        write_tenant("_defaults", "timezone: Europe/Berlin\n")
        write_tenant("acme", ACME)

    def test_each_value_has_the_line_that_it_comes_from(self, fabric: Run) -> None:
        values = {row["path"]: row for row in json.loads(fabric("explain", "acme", "--json").stdout)}
        assert (values["timezone"]["value"], Path(values["timezone"]["file"]).name, values["timezone"]["line"]) == ("Europe/Berlin", "_defaults.yaml", 1)
        assert (values["sources.shop.streams.orders.cursor.lag"]["value"], values["sources.shop.streams.orders.cursor.lag"]["line"]) == ("5m", 10)
        assert values["sources.shop.timeout"] == {"path": "sources.shop.timeout", "value": "1h", "default": True, "file": None, "line": None, "column": None}
        assert (values["sources.shop.streams.orders.write_disposition"]["value"], values["sources.shop.streams.orders.write_disposition"]["default"]) == (
            "merge",
            True,
        )
        assert values["sources.shop.url"]["value"] == {"secret": "shop_url"}
        assert values["destination.type"]["default"] is True
        assert values["checks.raw/shop/orders.0.min"]["value"] == 1

    def test_a_path_narrows_it_down(self, fabric: Run) -> None:
        lines = fabric("explain", "acme", "sources.shop.streams.orders.cursor").stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["sources.shop.streams.orders.cursor.field:", "sources.shop.streams.orders.cursor.lag:"]
        assert lines[1].rstrip().endswith("acme.yaml:10")

    def test_defaults_are_marked(self, fabric: Run) -> None:
        assert fabric("explain", "acme", "sources.shop.retries.max").stdout.split() == ["sources.shop.retries.max:", "2", "default"]

    def test_an_unknown_path_gets_a_suggestion(self, fabric: Run) -> None:
        done = fabric("explain", "acme", "sources.shop.streem")
        assert done.returncode == 2
        assert "did you mean 'sources.shop.streams'?" in done.stderr

    def test_a_broken_tenant_cannot_be_explained_and_says_why(self, fabric: Run, write_tenant: Write) -> None:
        write_tenant("globex", BROKEN)
        done = fabric("explain", "globex")
        assert done.returncode == 2
        assert "unknown key 'owner'" in done.stderr
        assert "hunter2" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [("validate",), ("list", "streams"), ("explain", "acme"), ("schema",)])
def test_these_commands_load_neither_dagster_nor_an_engine(arguments: tuple[str, ...], settings_environ: Mapping[str, str], write_tenant: Write) -> None:
    write_tenant("acme", ACME)
    code = (
        "import sys; from fabric_assets.cli.app import app\n"
        f"try: app({list(arguments)!r})\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*sorted({'dagster', 'dlt', 'dbt', 'duckdb', 'pyarrow', 'sqlalchemy', 'sqlglot', 'pandas'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_a_users_mistake_is_shown_in_two_lines_without_a_traceback(settings_environ: Mapping[str, str], write_tenant: Write) -> None:
    write_tenant("acme", ACME)
    done = subprocess.run(
        [sys.executable, "-c", "from fabric_assets.cli.main import main; main()", "explain", "acm"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'acm' is no tenant here; did you mean 'acme'?")
    assert "Traceback" not in done.stderr


def test_no_name_of_a_file_changes_what_validate_shows(fabric: Run, settings_environ: Mapping[str, str]) -> None:
    (Path(settings_environ["FABRIC_TENANTS_DIR"]) / "a\n\x1b[2J\u202eb.yaml").write_text("version: 1\n")
    done = fabric("validate")
    assert done.returncode == 2
    assert r"a\n\x1b[2J\u202eb.yaml" in done.stdout
    assert not {"\x1b", "\u202e"} & set(done.stdout) and "a\n" not in done.stdout


class TestWarnings:
    """What `validate` allows and warns of; the exit code stays 0."""

    def test_an_append_without_a_key_is_warned_of_with_the_remedy(self, fabric: Run, write_tenant: Write) -> None:
        stream = {"write_disposition": "append", "cursor": {"field": "id"}}
        source = {"type": "sql_database", "url": {"env": "NOWHERE"}, "streams": {"events": stream, "keyed": {**stream, "primary_key": "id"}}}
        file = write_tenant("acme", json.dumps({"version": 1, "tenant": "acme", "sources": {"shop": source}}))
        done = fabric("validate")
        assert done.returncode == 0
        assert f"{file}:" in done.stdout
        assert "sources.shop.streams.events.write_disposition: warning: append without a primary_key misses late rows" in done.stdout
        assert "streams.keyed" not in done.stdout
        assert done.stdout.endswith("1 of 1 tenants are fine; 1 warning found\n")
        (warning,) = json.loads(fabric("validate", "--json").stdout)
        assert (warning["path"], warning["severity"]) == ("sources.shop.streams.events.write_disposition", "warning")

    def test_a_cursor_of_a_database_that_cannot_report_late_rows_is_warned_of(self, fabric: Run, write_tenant: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        cursor = {"primary_key": "id", "cursor": {"field": "at"}}
        lagging = {"primary_key": "id", "cursor": {"field": "at", "lag": "1h"}}
        source = {"type": "sql_database", "url": {"env": "SHOP"}, "streams": {"orders": cursor, "lagging": lagging, "whole": {"primary_key": "id"}}}
        sources = {"shop": source, "quiet": {**source, "late_rows": False}}
        write_tenant("acme", json.dumps({"version": 1, "tenant": "acme", "sources": sources}))
        for url, count in (("mysql://u:hunter2@h/d", 1), ("mariadb+pymysql://u:hunter2@h/d", 1), ("postgresql+psycopg2://u:hunter2@h/d", 0), ("hunter2", 0)):
            monkeypatch.setenv("SHOP", url)
            done = fabric("validate")
            assert done.returncode == 0
            assert done.stdout.count("warning: rows that are committed late, with an older at, are missed") == count, url
            assert "hunter2" not in done.stdout + done.stderr
        assert fabric("validate").stdout.endswith("1 of 1 tenants are fine\n")
        monkeypatch.setenv("SHOP", "sqlite:///shop.db")
        assert "sources.shop.streams.orders.cursor: warning: " in fabric("validate").stdout
        monkeypatch.delenv("SHOP")
        assert fabric("validate").stdout == "1 of 1 tenants are fine\n"

    @pytest.mark.parametrize(
        ("host", "words"),
        [
            ("127.0.0.1:8000", "127.0.0.1: it is a loopback address; if the API is in your own network, set allow_private_network: true"),
            ("localhost", "localhost: it is a loopback address"),
            ("api.localhost:1", "api.localhost: it is a loopback address"),
            ("10.1.2.3", "10.1.2.3: it is a private address"),
            ("[::1]:8000", "::1: it is a loopback address"),
            ("127.1", "127.1: it is a loopback address"),
            ("[::ffff:192.168.0.1]", "::ffff:192.168.0.1: it is a private address"),
            ("169.254.169.254", "169.254.169.254: it is a link-local or metadata address; no load may connect there"),
            ("api.crm.example", None),
            ("1.1.1.1", None),
        ],
    )
    @pytest.mark.parametrize("is_reference", [False, True])
    def test_an_address_that_the_load_refuses_is_warned_of(
        self, fabric: Run, write_tenant: Write, monkeypatch: pytest.MonkeyPatch, host: str, words: str | None, is_reference: bool
    ) -> None:
        url = f"http://{host}/v1"
        monkeypatch.setenv("CRM_URL", url)
        source = {"type": "rest_api", "base_url": {"env": "CRM_URL"} if is_reference else url, "streams": {"contacts": {"path": "contacts"}}}
        write_tenant("acme", json.dumps({"version": 1, "tenant": "acme", "sources": {"crm": source}}))
        done = fabric("validate")
        assert done.returncode == 0
        assert (f"sources.crm.base_url: warning: the load does not connect to {words}" in done.stdout) if words else ("warning" not in done.stdout)
        write_tenant("acme", json.dumps({"version": 1, "tenant": "acme", "sources": {"crm": {**source, "allow_private_network": True}}}))
        assert ("warning" in fabric("validate").stdout) == host.startswith("169.")

    def test_the_address_that_gives_out_tokens_is_warned_of_too(self, fabric: Run, write_tenant: Write) -> None:
        auth = {"type": "oauth2_client_credentials", "token_url": "http://localhost/token", "client_id": "me", "client_secret": {"env": "NOWHERE"}}
        source = {"type": "rest_api", "base_url": "https://api.crm.example", "auth": auth, "streams": {"contacts": {"path": "contacts"}}}
        write_tenant("acme", json.dumps({"version": 1, "tenant": "acme", "sources": {"crm": source}}))
        assert "sources.crm.auth.token_url: warning: the load does not connect to localhost" in fabric("validate").stdout
