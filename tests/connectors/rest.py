"""An HTTP API on loopback that tests script, and loads of it into a real warehouse."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fabric_assets.config.tenant import TenantConfig
from fabric_assets.connectors.destinations import connect
from fabric_assets.loading.load import run_load
from fabric_assets.loading.reports import LoadRequest, StreamReport
from fabric_assets.settings import Settings

Handler = Callable[[Request], Any]


@dataclass
class Api:
    """Args:
    requests: all that were made, in order.
    """

    server: HTTPServer
    requests: list[Request] = field(default_factory=list)

    def serve(self, path: str, answer: Any) -> None:
        """Args:
        answer: what each request gets: a JSON value, a Response, or a function from the request to one of these.
        """

        def handle(request: Request) -> Response:
            request.get_data()
            self.requests.append(request)
            value = answer(request) if callable(answer) and not isinstance(answer, Response) else answer
            return value if isinstance(value, Response) else answer_json(value)

        self.server.expect_request(path).respond_with_handler(handle)

    @property
    def url(self) -> str:
        return self.server.url_for("/v1").rstrip("/")

    def get_queries(self, path: str) -> list[dict[str, str]]:
        """The query parameters of each request of a path."""
        return [dict(request.args) for request in self.requests if request.path == path]

    def get_paths(self) -> list[str]:
        return [request.path for request in self.requests]


def answer_json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status=status, content_type="application/json", headers=dict(headers or {}))


@dataclass
class Warehouse:
    """Loads of tenant acme's source `crm`."""

    settings: Settings
    api: Api
    destination: Mapping[str, Any] = field(default_factory=lambda: {"type": "duckdb"})
    messages: list[str] = field(default_factory=list)

    def load(self, streams: Mapping[str, Any], *only: str, full_refresh: bool = False, **source: Any) -> dict[str, StreamReport]:
        """Args:
        streams: the `streams:` block.
        only: the streams to load; default all.
        source: the rest of the source's block.
        """
        declared = {"type": "rest_api", "base_url": self.api.url, "streams": streams, **source}
        request = LoadRequest(tenant=self._build_tenant({"crm": declared}), source="crm", streams=only, settings=self.settings, full_refresh=full_refresh)
        return {report.stream: report for report in run_load(request, report=self.messages.append)}

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Args:
        query: SQL on the raw dataset, tables without a schema.
        """
        connection = connect(self._build_tenant({}), self.settings, read_only=True)
        try:
            cursor = connection.cursor()
            cursor.execute("set search_path = 'acme_raw_crm'")
            cursor.execute(query)
            return cursor.fetchall()
        finally:
            connection.close()

    def list_tables(self) -> list[str]:
        connection = connect(self._build_tenant({}), self.settings, read_only=True)
        try:
            cursor = connection.cursor()
            cursor.execute("select table_name from information_schema.tables where table_schema = 'acme_raw_crm' order by 1")
            return [name for (name,) in cursor.fetchall() if not name.startswith("_dlt_")]
        finally:
            connection.close()

    def _build_tenant(self, sources: Mapping[str, Any]) -> TenantConfig:
        return TenantConfig.model_validate({"version": 1, "tenant": "acme", "destination": self.destination, "sources": sources})
