"""`type: rest_api`: an API on loopback that pages, filters by its cursor, and says back what it was told where it refuses."""

import json
from typing import Any

from werkzeug import Request, Response

from tests.contract.source import COLUMNS, Row, Source

TOKEN = "c4n4ry-of-the-api"
_PAGE = 40


class RestApi(Source):
    """Endpoints of an API that asks for a bearer token."""

    type = "rest_api"
    boundary = 1
    follows_deletes = True

    def prepare(self) -> None:
        self.secret, self._bad, self._is_broken = TOKEN, list[dict[str, Any]](), False
        self.environ("CONTRACT_TOKEN", TOKEN)
        self._server = self.get_fixture("httpserver")
        for stream in self.rows:
            self._server.expect_request(f"/v1/{stream}").respond_with_handler(lambda request, stream=stream: self._answer(request, stream))

    def _answer(self, request: Request, stream: str) -> Response:
        if self._is_broken and stream == "stores":
            return _build_answer({"refused": dict(request.headers)}, 404)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _build_answer({"refused": dict(request.headers)}, 401)
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in self.rows[stream].values()] + (self._bad if stream == "orders" else [])
        rows = [row for row in rows if row["seq"] >= int(request.args.get("since", "0"))]
        first = (int(request.args.get("page", "1")) - 1) * _PAGE
        return _build_answer(rows[first : first + _PAGE])

    def build(self) -> dict[str, Any]:
        stream = {"primary_key": "id", "paginator": {"type": "page_number"}, "cursor": {"field": "seq", "param": "since"}}
        return {
            "type": "rest_api",
            "base_url": self._server.url_for("/v1"),
            "allow_private_network": True,
            "auth": {"type": "bearer", "token": {"env": "CONTRACT_TOKEN"}},
            "streams": {name: {"path": name, **stream} for name in self.rows},
        }

    def write(self, stream: str, changed: list[Row]) -> None:
        """The API answers from `self.rows`."""

    def delete(self, stream: str, row: Row) -> None:
        """The API answers from `self.rows`."""

    def add_bad_row(self) -> None:
        self._bad.append({"id": None, "owner": "acme", "note": "bad", "seq": self.next_seq()})

    def break_stream(self) -> None:
        self._is_broken = True

    def fix_stream(self) -> None:
        self._is_broken = False


def _build_answer(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value), status=status, content_type="application/json")
