"""One endpoint -> pages of rows, through dlt's REST client and paginators.

What the client would guess or pass over is refused here, each with the field to declare: a selector that matches nothing looks
like an empty stream, a page number that the server ignores like an endless one, a capped `limit` leaves rows out.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

from dlt.common import jsonpath
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import (
    BasePaginator,
    HeaderLinkPaginator,
    JSONLinkPaginator,
    JSONResponseCursorPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    SinglePagePaginator,
)
from requests import Response

from fabric_assets.config import rest
from fabric_assets.connectors.batches import Row
from fabric_assets.connectors.rest_session import ApiSession, build_timeout_error, read_json
from fabric_assets.errors import ConfigurationError, FabricError, SourceError, SourceUnavailable
from fabric_assets.security.outgoing import show_url


class PageReader:
    """Reads one stream's endpoint.

    Args:
        place: tenant, source and stream, for messages.
        base_url: where the path begins.
        paginator: the stream's or the source's; None lets dlt find it.
        is_merged: all streams that are loaded of these rows, or from below them, are merged by a key, so that no row comes twice.
        ends: when, by the monotonic clock, the load has taken too long.
    """

    def __init__(
        self,
        place: str,
        *,
        base_url: str,
        session: ApiSession,
        stream: rest.RestStream,
        paginator: rest.PaginatorConfig | None,
        is_merged: bool,
        ends: float,
    ) -> None:
        self._place, self._stream, self._config, self._is_merged, self._ends = place, stream, paginator, is_merged, ends
        self._client = _Client(place, base_url=base_url, session=session, guessing=stream.data is None)
        self._selector = _compile(stream.data, "data", place) if stream.data else None
        build_paginator(paginator, place)

    def read(self, path: str, params: Mapping[str, str | int]) -> Iterator[tuple[int, list[Row]]]:
        """Yield the non-empty pages below a path, each with its number, from 1.

        Raises:
            SourceError: the server refuses, or its answers are not what is declared.
            SourceUnavailable: it cannot be reached, or not read in time.
        """
        # The session has its own way with refusals; without a hook the client would add one.
        paginator, hooks = build_paginator(self._config, self._place), {"response": []}
        pages = self._client.paginate(path, params=dict(params), paginator=paginator, data_selector=self._selector, hooks=hooks)  # type: ignore[arg-type]
        previous, short, most = None, False, None
        asked: set[str] = set()
        while (page := self._get_next(pages)) is not None:
            rows, response = list(page), page.response
            if time.monotonic() > self._ends:
                raise build_timeout_error(self._place)
            if not all(isinstance(row, dict) for row in rows):
                raise SourceError(f"{self._place}: the rows at {show_url(response.url)} are no JSON objects", remedy="let `data` point at the list of rows")
            if (address := response.request.url or "") in asked:
                raise SourceError(f"{self._place}: the next page leads back to a page that was read already", remedy="check the paginator against the API")
            asked.add(address)
            # Without a key equal rows may well be different ones; then only the answer as a whole tells.
            content = rows if self._stream.primary_key else response.content
            if rows and content == previous:
                raise SourceError(f"{self._place}: the server gives the same page again and again", remedy="check the paginator: the server seems to ignore it")
            if rows and short:
                raise self._build_short_error()
            if rows and (total := self._get_total(response)) is not None:
                self._check_total(most, total)
                most = total
            if isinstance(self._config, rest.OffsetPaginator):
                short = self._check_length(rows, page.paginator, most if self._config.total else None)
            previous = content
            if rows:
                yield len(asked), rows

    def _get_next(self, pages: Iterator[Any]) -> Any:
        try:
            return next(pages, None)
        except FabricError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        # dlt's own message quotes the whole answer.
        wanted = getattr(self._config, "total", None) or getattr(self._config, "next", None)
        names = f" in `{wanted}`" if wanted else ""
        raise SourceError(f"{self._place}: the answer does not say how to go on{names}", remedy="check the paginator's JSONPath against an answer of the API")

    def _get_total(self, response: Response) -> int | None:
        """How many rows or pages there are; dlt has refused by now what is no number."""
        path = getattr(self._config, "total", None)
        return int(jsonpath.find_values(path, response.json())[0]) if path else None

    def _check_total(self, before: int | None, total: int) -> None:
        """Refuse to go on by a total that is another one now: rows have moved over the pages' borders.

        One that grows has brought some rows twice, which harms nothing where they are merged.
        """
        if before is None or total == before or (total > before and self._is_merged):
            return
        moved = "up would be left out" if total < before else "down would come twice"
        raise SourceUnavailable(
            f"{self._place}: the total went from {before} to {total} while the pages were read, so that rows which moved {moved}",
            remedy="the load tries again later; if it changes all the time, use pages by link or cursor if the API has them, or merge with a primary_key",
        )

    def _check_length(self, rows: list[Row], paginator: Any, total: int | None) -> bool:
        """Whether the page is shorter than asked for, so that it must be the last one."""
        if len(rows) > paginator.limit:
            raise SourceError(
                f"{self._place}: the server gives {len(rows)} rows a page where `limit` asks for {paginator.limit}, so the next offset would bring rows again",
                remedy="set the paginator's limit to the rows that the server gives a page",
            )
        if not rows or len(rows) == paginator.limit:
            return False
        # The paginator stands at the next page already.
        if total is not None and paginator.current_value - paginator.limit + len(rows) < total:
            raise self._build_short_error()
        return True

    def _build_short_error(self) -> SourceError:
        return SourceError(
            f"{self._place}: the server gives fewer rows a page than `limit` asks for, so the next offset would leave rows out",
            remedy="set the paginator's limit to what the server allows",
        )


class _Client(RESTClient):
    """dlt's client, which refuses instead of guessing, and parses each answer once."""

    def __init__(self, place: str, *, base_url: str, session: ApiSession, guessing: bool) -> None:
        super().__init__(base_url, session=session)
        self._place, self._session, self._guessing = place, session, guessing

    def detect_data_selector(self, response: Response) -> str:
        read_json(response, self._place)
        return super().detect_data_selector(response)

    def extract_response(self, response: Response, data_selector: jsonpath.TJsonPath) -> list[Any]:
        body = read_json(response, self._place)
        rows = self._find_rows(response, data_selector, body)
        if isinstance(body, dict) and (body.get("error") or body.get("errors")) and (self._guessing or not rows):
            said = self._session.quote(response)
            raise SourceError(
                f"{self._place}: the answer of {show_url(response.url)} holds an error in place of rows{said}",
                remedy="check the stream's path and params; if the rows are there as well, declare `data`",
            )
        return rows

    def _find_rows(self, response: Response, data_selector: jsonpath.TJsonPath, body: Any) -> list[Any]:
        values = jsonpath.find_values(data_selector, body)
        if not values:
            if _matches_empty_list(data_selector, body):
                return []
            fields = ", ".join(body) if isinstance(body, dict) else "a list"
            raise SourceError(
                f"{self._place}: `{data_selector}` matches nothing in the answer of {show_url(response.url)}, which holds: {fields or 'nothing'}",
                remedy="let `data` be the JSONPath of the list of rows",
            )
        if len(values) == 1:
            only = values[0]
            # An empty list is null in some servers' JSON.
            return [] if only is None else only if isinstance(only, list) else [only]
        return list(chain.from_iterable(values)) if all(isinstance(value, list) for value in values) else values

    def detect_paginator(self, response: Response, data: Any) -> BasePaginator:
        paginator, score = self.pagination_factory.create_paginator(response)
        if paginator is None or 0 < score < 1:
            # dlt would go on with its defaults: a wrong first page number or parameter name leaves rows out.
            raise SourceError(f"{self._place}: the answers come in pages, but how to ask for the next one is not certain", remedy="declare `paginator`")
        return _JsonLink(paginator.next_url_path) if isinstance(paginator, JSONLinkPaginator) else paginator


class _JsonLink(JSONLinkPaginator):
    """Takes an empty link for none, as servers mean it."""

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        super().update_state(response, data)
        if not self._next_reference:
            self._next_reference = None


def build_paginator(config: rest.PaginatorConfig | None, place: str) -> BasePaginator | None:
    """Build dlt's paginator; None is to be found by dlt.

    Raises:
        ConfigurationError: a JSONPath is none.
    """
    match config:
        case rest.HeaderLinkPaginator():
            return HeaderLinkPaginator(links_next_key=config.rel)
        case rest.JsonLinkPaginator():
            return _JsonLink(_compile(config.next, "paginator.next", place))
        case rest.PageNumberPaginator():
            # Where the number of pages is known, an empty page is no end: its rows may be hidden from this login.
            total = _compile(config.total, "paginator.total", place) if config.total else None
            return PageNumberPaginator(base_page=config.base, page_param=config.param, total_path=total, stop_after_empty_page=total is None)
        case rest.OffsetPaginator():
            total = _compile(config.total, "paginator.total", place) if config.total else None
            return OffsetPaginator(
                config.limit, offset_param=config.offset_param, limit_param=config.limit_param, total_path=total, stop_after_empty_page=total is None
            )
        case rest.CursorPaginator():
            return JSONResponseCursorPaginator(_compile(config.next, "paginator.next", place), cursor_param=config.param)
        case rest.SinglePagePaginator():
            return SinglePagePaginator()
    return None


def _compile(path: str, field: str, place: str) -> Any:
    try:
        return jsonpath.compile_path(path)
    except Exception as error:  # noqa: BLE001 the parser raises plain Exception
        raise ConfigurationError(f"{place}: {field} `{path}` is no JSONPath: {error}", remedy="e.g. results, or data.items") from None


def _matches_empty_list(selector: Any, body: Any) -> bool:
    """Whether a path like `data.rows[*]` ends in a list that is there, and empty."""
    text = str(selector)
    before = text.partition("[")[0].partition("*")[0].rstrip(".")
    return before != text and bool(jsonpath.find_values(before or "$", body))
