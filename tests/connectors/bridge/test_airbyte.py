"""Airbyte connectors: what becomes of states, statuses, counts and failures; a low-code manifest; and connectors of PyPI."""

import http.server
import json
import textwrap
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from fabric_assets.connectors.bridge.installing.environments import get_environment
from fabric_assets.connectors.bridge.installing.specs import find_mistakes
from fabric_assets.errors import ConfigurationError, FabricError, SourceError, SourceUnavailable
from fabric_assets.settings import Settings
from tests.support.dlt_rows import install_from_index
from tests.support.lengths import AT_FULL_LENGTH
from tests.support.shop import Tenant, write_secret_file


class Connector:
    """A tenant with the source `crm`, read by the tests' own connector."""

    def __init__(self, settings: Settings, warehouse: str | None = None) -> None:
        self.folder = settings.data_dir / "rows"
        self.folder.mkdir()
        self.tenant = Tenant(settings, {}, warehouse=warehouse, source_name="crm")
        for stream in ("orders", "stores"):
            self.write(stream, (1, "a", 1), (2, "b", 2))
        self.declare()

    def declare(self, code: str = "", **streams: Mapping[str, Any]) -> None:
        """Let the next loads run code before they read; code that ends the program sends all messages itself."""
        write_secret_file(self.tenant.settings, "token", "c4n4ry-token")
        self.tenant.source = {
            "type": "airbyte",
            "connector": "rows",
            "folders": {"rows": "rows"},
            "arguments": {"folder": "{rows}", "code": textwrap.dedent(code)},
            "secrets": {"token": {"file": "token"}},
            "retries": {"max": 0},
            "streams": {name: dict(stream) for name, stream in (streams or {"orders": {}, "stores": {}}).items()},
        }

    def write(self, stream: str, *rows: tuple[int, str, int]) -> None:
        (self.folder / f"{stream}.json").write_text(json.dumps([{"id": id_, "owner": "acme", "note": note, "seq": seq} for id_, note, seq in rows]))

    def read(self, stream: str, *columns: str) -> list[tuple[Any, ...]]:
        return self.tenant.read(stream, *columns)


@pytest.fixture
def connector(settings: Settings, installed_airbyte: Mapping[str, Path]) -> Connector:
    return Connector(replace(settings, **installed_airbyte))


# Rows of both streams, each with its end.
BOTH = """
for name in ("orders", "stores"):
    send_row(name, {"id": 1, "note": name, "seq": 1})
    send_state(name, {"seq": 1}, 1.0)
    send_status(name, "COMPLETE")
"""
END = "\nsys.stdout.flush(); sys.exit(0)"


def test_a_whole_stream_is_replaced_and_an_incremental_one_read_from_its_state(connector: Connector) -> None:
    connector.declare(orders={"cursor": {"field": "seq"}}, stores={})
    assert {name: report.rows_loaded for name, report in connector.tenant.load().items()} == {"orders": 2, "stores": 2}
    connector.write("orders", (2, "changed", 3), (1, "a", 1))
    connector.write("stores", (9, "x", 9))
    assert {name: report.rows_loaded for name, report in connector.tenant.load().items()} == {"orders": 1, "stores": 1}
    assert connector.read("orders", "id", "note") == [(1, "a"), (2, "changed")]
    assert connector.read("stores", "id") == [(9,)]


def test_a_global_state_covers_all_streams_and_comes_back(connector: Connector) -> None:
    code = """
        said = states[0]["global"]["shared_state"]["run"] + 1 if states else 1
        for name in ("orders", "stores"):
            send_row(name, {"id": said, "seq": said})
            send_status(name, "COMPLETE")
        send("STATE", state={"type": "GLOBAL", "global": {"shared_state": {"run": said}, "stream_states": []}, "sourceStats": {"recordCount": 2.0}})
    """
    connector.declare(textwrap.dedent(code) + END, orders={"replication": "incremental"}, stores={"replication": "incremental"})
    for _ in range(2):
        connector.tenant.load()
    assert connector.read("orders", "id") == connector.read("stores", "id") == [(1,), (2,)]
    with pytest.raises(ConfigurationError, match="keeps one state for orders, stores, so they are loaded together"):
        connector.tenant.load("orders")


def test_the_state_of_an_older_connector_comes_back_as_it_was(connector: Connector) -> None:
    code = """
        said = states.get("orders", 0) + 1 if states else 1
        for name in ("orders", "stores"):
            send_row(name, {"id": said})
        send("STATE", state={"data": {"orders": said}})
    """
    connector.declare(textwrap.dedent(code) + END, orders={"replication": "incremental"}, stores={"replication": "incremental"})
    for _ in range(2):
        connector.tenant.load()
    assert connector.read("orders", "id") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (
            'send_row("orders", {"id": 1}); send_state("orders", {}, 2.0); send_status("orders", "COMPLETE")',
            SourceError,
            "counted 2 rows in its state and sent 1",
        ),
        ('send_row("orders", {"id": 1}); send_state("orders", {}, 1.0); send_status("orders", "INCOMPLETE")', SourceError, "did not complete the stream"),
        ('send_row("orders", {"id": 1}); send_status("orders", "RUNNING")', SourceError, "did not complete the stream: RUNNING"),
        ('send_error("log in again", "config_error", "orders")', ConfigurationError, "failed: log in again"),
        ('send_error("the API is down", "transient_error", "orders")', SourceUnavailable, "failed: the API is down"),
        ('send_error("a fault", "system_error", "orders")', SourceError, "failed: a fault"),
    ],
)
def test_a_stream_that_is_not_whole_fails_and_the_other_is_loaded(connector: Connector, code: str, kind: type[FabricError], message: str) -> None:
    connector.declare(f'{code}\nsend_row("stores", {{"id": 7}})\nsend_state("stores", {{}}, 1.0)\nsend_status("stores", "COMPLETE"){END}')
    with pytest.raises(kind, match=message):
        connector.tenant.load()
    assert connector.read("stores", "id") == [(7,)]
    connector.declare()
    connector.tenant.load()
    assert connector.read("orders", "id") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        ('send_error(f"the login {config[\'token\']} is wrong", "config_error"); sys.stdout.flush(); sys.exit(1)', ConfigurationError, "failed: the login"),
        (
            'send("LOG", log={"level": "ERROR", "message": "key " + config["token"]}); send_error("x"); sys.stdout.flush(); sys.exit(1)',
            SourceError,
            "rows: key",
        ),
        ('sys.stderr.write("bye " + config["token"]); sys.exit(3)', SourceUnavailable, "exit code 3\n  rows: bye"),
        (
            'sys.stdout.write("this is no JSON\\n"); sys.stdout.flush(); time.sleep(600)',
            SourceError,
            "is not a message of the Airbyte protocol: 'this is no JSON'",
        ),
        ('send("RECORD", record={"data": {}})', SourceError, "is not a message of the Airbyte protocol"),
        ('send("STATE", state={"type": "STREAM"})', SourceError, "is a STATE that does not follow the Airbyte protocol"),
        ('send_row("orders", 5)' + END, SourceError, "without an object"),
        ("os.kill(os.getpid(), 9)", SourceUnavailable, "was ended by signal 9"),
    ],
)
def test_of_a_connector_that_does_wrong_nothing_is_kept_and_the_next_run_is_whole(
    connector: Connector, code: str, kind: type[FabricError], message: str
) -> None:
    connector.declare(code)
    with pytest.raises(kind, match=message) as caught:
        connector.tenant.load()
    assert "c4n4ry" not in str(caught.value)
    connector.declare()
    connector.tenant.load()
    assert connector.read("orders", "id") == [(1,), (2,)]


def test_settings_that_a_connector_changes_are_told(connector: Connector) -> None:
    code = 'send("CONTROL", control={"type": "CONNECTOR_CONFIG", "emitted_at": 1.0, "connectorConfig": {"config": {"token": "new"}}})\n'
    connector.declare(code + BOTH + END)
    connector.tenant.load()
    assert any("rows has changed its own settings, perhaps a token that is valid once" in message for message in connector.tenant.messages)


def test_a_stream_or_a_field_that_is_not_there_is_named(connector: Connector) -> None:
    connector.declare(order={})
    with pytest.raises(ConfigurationError, match="rows has no stream 'order'; did you mean 'orders'"):
        connector.tenant.load()
    connector.declare(orders={"cursor": {"field": "sek"}})
    with pytest.raises(ConfigurationError, match="has no field 'sek'; did you mean 'seq'"):
        connector.tenant.load()


@pytest.mark.parametrize(
    "entry", [{"json_schema": {}}, {"name": 5}, {"name": "x", "json_schema": ["id"]}, {"name": "x", "source_defined_primary_key": ["id"]}, 5]
)
def test_a_catalog_that_is_not_one_is_refused(connector: Connector, entry: Any) -> None:
    connector.tenant.source["arguments"]["streams"] = [entry]
    with pytest.raises(SourceError, match="did not write a catalog that follows the protocol"):
        connector.tenant.load()


def test_append_of_a_stream_that_is_read_as_a_whole_is_refused(connector: Connector) -> None:
    connector.declare(orders={"write_disposition": "append"})
    with pytest.raises(ConfigurationError, match="append would load all rows again in each run"):
        connector.tenant.load()


def test_settings_are_checked_by_the_connectors_own_spec(connector: Connector) -> None:
    environment = get_environment(connector.tenant.settings, "rows")
    connector.tenant.source["arguments"] = {"foldr": "x", "login": {"user": "u", "password": ""}}
    found = dict(find_mistakes(environment.spec, connector.tenant.config.sources["crm"]))  # type: ignore[arg-type]
    assert "has no setting 'foldr'; did you mean 'folder'" in found["arguments", "foldr"]
    assert "it belongs under secrets" in found["arguments", "login", "password"]


def test_many_rows_are_read_as_columns_with_their_namespace(connector: Connector) -> None:
    """Rows of one stream follow one another, as in most connectors."""
    code = 'for number in range(1000): send_row("orders", {"id": number, "owner": "é", "note": "n", "seq": number})\nsend_state("orders", {}, 1000.0)\n'
    connector.declare(code + 'send_status("orders", "COMPLETE")' + END, orders={})
    connector.tenant.load()
    assert connector.tenant.ask("select count(*), count(distinct id), min(owner) from acme_raw_crm.orders") == [(1000, 1000, "é")]


def test_streams_of_one_name_are_told_apart_by_their_namespace(connector: Connector) -> None:
    code = """
        for each in catalog["streams"]:
            descriptor = {word: each["stream"][word] for word in ("name", "namespace") if word in each["stream"]}
            seen = [state["stream"]["stream_state"]["seen"] for state in states if state["stream"]["stream_descriptor"] == descriptor]
            row = {"id": 1, "note": descriptor.get("namespace", "none"), "seq": seen[0] + 1 if seen else 1}
            send("RECORD", record={"stream": descriptor["name"], "data": row, "emitted_at": 1, **{w: v for w, v in descriptor.items() if w == "namespace"}})
            send("STATE", state={"type": "STREAM", "stream": {"stream_descriptor": descriptor, "stream_state": {"seen": row["seq"]}}})
    """
    streams = {"a": {"stream": "eu.orders"}, "b": {"stream": "us.orders"}, "c": {"stream": "dotted.name"}}
    connector.declare(textwrap.dedent(code) + END, **{name: {**stream, "replication": "incremental", "primary_key": "id"} for name, stream in streams.items()})
    modes = {"json_schema": {}, "supported_sync_modes": ["full_refresh", "incremental"]}
    own = [{"name": "orders", "namespace": "eu"}, {"name": "orders", "namespace": "us"}, {"name": "dotted.name"}]
    connector.tenant.source["arguments"]["streams"] = [{**each, **modes} for each in own]
    for times in (1, 2):
        connector.tenant.load()
        assert [connector.read(stream, "note", "seq") for stream in streams] == [[("eu", times)], [("us", times)], [("none", times)]]


# --- connectors of PyPI


class Api(http.server.BaseHTTPRequestHandler):
    """Nine tickets in pages of four, those that changed since a moment."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        self.asked.append(self.path)
        rows = [{"id": number, "updated_at": f"2024-01-0{number}T00:00:00Z"} for number in range(1, 10)]
        rows = [row for row in rows if row["updated_at"] >= query.get("since", "")]
        first = (int(query.get("page", "1")) - 1) * 4
        body = json.dumps({"tickets": rows[first : first + 4]}).encode()
        self.send_response(200 if self.headers.get("Authorization") == "Bearer c4n4ry-key" else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class names it so
        pass


@pytest.fixture
def api() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Api.asked.clear()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


MANIFEST = """
version: 6.0.0
type: DeclarativeSource
check: {type: CheckStream, stream_names: [tickets]}
streams:
  - type: DeclarativeStream
    name: tickets
    primary_key: [id]
    schema_loader:
      type: InlineSchemaLoader
      schema: {type: object, properties: {id: {type: integer}, updated_at: {type: string, format: date-time}}}
    incremental_sync:
      type: DatetimeBasedCursor
      cursor_field: updated_at
      cursor_datetime_formats: ["%Y-%m-%dT%H:%M:%SZ"]
      datetime_format: "%Y-%m-%dT%H:%M:%SZ"
      start_datetime: {type: MinMaxDatetime, datetime: "{{ config['start_date'] }}", datetime_format: "%Y-%m-%dT%H:%M:%SZ"}
      start_time_option: {type: RequestOption, inject_into: request_parameter, field_name: since}
    retriever:
      type: SimpleRetriever
      requester:
        type: HttpRequester
        url_base: "{{ config['url'] }}"
        path: /tickets
        http_method: GET
        authenticator: {type: BearerAuthenticator, api_token: "{{ config['api_key'] }}"}
      record_selector: {type: RecordSelector, extractor: {type: DpathExtractor, field_path: [tickets]}}
      paginator:
        type: DefaultPaginator
        page_token_option: {type: RequestOption, inject_into: request_parameter, field_name: page}
        pagination_strategy: {type: PageIncrement, page_size: 4, start_from_page: 1}
spec:
  type: Spec
  connection_specification:
    type: object
    required: [url, api_key, start_date]
    properties:
      url: {type: string}
      api_key: {type: string, airbyte_secret: true}
      start_date: {type: string}
"""


def test_a_manifest_reads_pages_and_goes_on_from_its_state(settings: Settings, tmp_path: Path, api: str) -> None:
    (tmp_path / "manifests").mkdir()
    (tmp_path / "manifests" / "desk.yaml").write_text(MANIFEST)
    (tmp_path / "connectors.yaml").write_text("connectors:\n  desk: {type: airbyte, manifest: manifests/desk.yaml}\n")
    own = replace(settings, connectors=tmp_path / "connectors.yaml", connectors_dir=tmp_path / "connectors")
    install_from_index(own, "desk")
    spec = get_environment(own, "desk").spec
    assert spec is not None
    assert spec["required"] == ["url", "api_key", "start_date"]
    write_secret_file(own, "key", "c4n4ry-key")
    source = {
        "type": "airbyte",
        "connector": "desk",
        "arguments": {"url": api, "start_date": "2024-01-01T00:00:00Z"},
        "secrets": {"api_key": {"file": "key"}},
        "allow_private_network": True,
        "retries": {"max": 0},
        "streams": {"tickets": {}},
    }
    tenant = Tenant(own, source, source_name="desk")
    assert tenant.load()["tickets"].rows_loaded == 9
    assert tenant.load()["tickets"].rows_loaded <= 1
    assert "since=2024-01-09T00%3A00%3A00Z" in Api.asked[-1]
    assert tenant.ask("select count(*), max(updated_at)::date::text from acme_raw_desk.tickets") == [(9, "2024-01-09")]
    tenant.source = {**source, "allow_private_network": False}
    with pytest.raises(FabricError, match="allow_private_network"):
        tenant.load()


@AT_FULL_LENGTH
@pytest.mark.parametrize(
    ("requirement", "program", "arguments", "streams"),
    [
        (
            "airbyte-source-faker==7.2.1",
            "source-faker",
            {"count": 200, "seed": 1, "records_per_slice": 50, "always_updated": False},
            {"users": 200, "products": 100},
        ),
        ("airbyte-source-hardcoded-records==0.0.48", "source-hardcoded-records", {"count": 500}, {"products": 500}),
    ],
)
def test_connectors_of_pypi_are_loaded(
    settings: Settings, tmp_path: Path, requirement: str, program: str, arguments: dict[str, Any], streams: dict[str, int]
) -> None:
    # source-faker starts processes by multiprocessing, whose locks lie in /dev/shm.
    trusted = ", trusted: true" if program == "source-faker" else ""
    (tmp_path / "connectors.yaml").write_text(f"connectors:\n  real: {{type: airbyte, requirements: [{requirement}], executable: {program}{trusted}}}\n")
    own = replace(settings, connectors=tmp_path / "connectors.yaml", connectors_dir=tmp_path / "connectors")
    install_from_index(own, "real")
    source = {"type": "airbyte", "connector": "real", "arguments": arguments, "retries": {"max": 0}, "streams": {name: {} for name in streams}}
    tenant = Tenant(own, source, source_name="real")
    for _ in range(2):
        tenant.load()
        for stream, rows in streams.items():
            assert tenant.ask(f"select count(*) from acme_raw_real.{stream}") == [(rows,)]
