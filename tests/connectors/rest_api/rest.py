"""An HTTP API on loopback that tests script, readings of it, and loads of it into a real warehouse."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from fabric_assets.config.sources.models import RestApiSource
from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.rest_api.source import open_source
from fabric_assets.errors import FabricError
from fabric_assets.rows.batches import Batch, ReadGroup, SourceReader
from fabric_assets.rows.reports import StreamReport
from fabric_assets.settings import Settings
from tests.support.memory import Memory
from tests.support.shop import Tenant

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


def skip_pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let the pauses between tries take no time, and list them."""
    pauses: list[float] = []
    monkeypatch.setattr("fabric_assets.connectors.rest_api.session.time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic, time=time.time))
    return pauses


@dataclass
class Reading:
    """What one pass over tenant acme's source `crm` gave, and what each stream remembers of it."""

    batches: list[Batch] = field(default_factory=list)
    failures: dict[str, FabricError] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    memories: dict[str, Memory] = field(default_factory=dict)

    def get_rows(self, stream: str) -> list[dict[str, Any]]:
        return [row for batch in self.batches if batch.stream == stream for row in batch.rows]  # type: ignore[union-attr]

    def open(self, streams: Mapping[str, Any], *only: str, **source: Any) -> SourceReader:
        config = RestApiSource.model_validate({"type": "rest_api", "allow_private_network": True, "streams": streams, **source})
        settings = Settings(tenants_dir=Path("tenants"), dbt_project_dir=Path("dbt_project"), data_dir=Path(".fabric"))
        context = SourceContext("acme", "crm", config, streams=only or tuple(streams), settings=settings, report=self.messages.append)
        return open_source(context)

    def collect(self, group: ReadGroup) -> None:
        for item in group.read({plan.name: self.memories.setdefault(plan.name, Memory()) for plan in group.streams}):
            if isinstance(item, Batch):
                self.batches.append(item)
            else:
                self.failures[item.stream] = item.error


def read(streams: Mapping[str, Any], *only: str, memories: dict[str, Memory] | None = None, **source: Any) -> Reading:
    """Read streams one group after the other.

    Args:
        source: the rest of the source's block.
    """
    reading = Reading(memories={} if memories is None else memories)
    reader = reading.open(streams, *only, **source)
    try:
        for group in reader.groups:
            reading.collect(group)
    finally:
        reader.close()
    return reading


class Warehouse:
    """Loads of tenant acme's source `crm`.

    Args:
        url: of a Postgres; None for DuckDB.
    """

    def __init__(self, settings: Settings, api: Api, url: str | None = None) -> None:
        self.settings, self.api, self.tenant = settings, api, Tenant(settings, {}, warehouse=url, source_name="crm")
        self.messages = self.tenant.messages

    def load(self, streams: Mapping[str, Any], *only: str, full_refresh: bool = False, **source: Any) -> dict[str, StreamReport]:
        """Args:
        streams: the `streams:` block.
        only: the streams to load; default all.
        source: the rest of the source's block.
        """
        self.tenant.source = {"type": "rest_api", "base_url": self.api.url, "allow_private_network": True, "streams": streams, **source}
        return self.tenant.load(*only, full_refresh=full_refresh)

    def read(self, query: str) -> list[tuple[Any, ...]]:
        """Args:
        query: SQL on the raw dataset, tables without a schema.
        """
        return self.tenant.ask("set search_path = 'acme_raw_crm'", query)

    def list_tables(self) -> list[str]:
        tables = self.tenant.ask("select table_name from information_schema.tables where table_schema = 'acme_raw_crm' order by 1")
        return [name for (name,) in tables if not name.startswith("_dlt_")]
