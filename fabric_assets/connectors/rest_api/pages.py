"""One endpoint -> pages of rows, through dlt's REST client and paginators.

The client guesses or ignores some things that are refused here, each with the field to declare. For the client, a selector that matches nothing is an empty
stream, and a page number that the server ignores an endless one. If the server caps `limit`, rows are left out.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

from dlt.common import jsonpath
from dlt.sources.helpers.rest_client.client import RESTClient
from dlt.sources.helpers.rest_client.paginators import BasePaginator
from requests import Response

from fabric_assets.config.sources import rest, rest_paging
from fabric_assets.connectors.rest_api.answers import get_repeated
from fabric_assets.connectors.rest_api.error_bodies import ends_in_failure, reports_failure
from fabric_assets.connectors.rest_api.json_objects import find_repeated
from fabric_assets.connectors.rest_api.more import is_empty
from fabric_assets.connectors.rest_api.paginators import EntityPaginator, Offset, PagingError, build_paginator, compile_path, detect_paginator
from fabric_assets.connectors.rest_api.rows import Page, build_page
from fabric_assets.connectors.rest_api.session import ApiSession, build_timeout_error
from fabric_assets.errors import FabricError, RefusedRequest, SourceError, SourceUnavailable
from fabric_assets.own_faults import is_own_fault
from fabric_assets.security.outgoing import show_url


class PageReader:
    """A reader of one stream's endpoint.

    Args:
        where: tenant, source and stream, for messages.
        base_url: where the path begins.
        paginator: the stream's or the source's; None detects it.
        is_merged: all streams that are loaded from these rows, or from below them, merge by a key, so that no row is loaded twice.
        is_entity: an object in the answer is the row itself, not an envelope of rows.
        report_list: is called with the JSONPath of the rows that were found within an answer.
        warn: is called with warnings for the run's summary.
        ends: the time on the monotonic clock at which the load has taken too long.
    """

    def __init__(
        self,
        where: str,
        *,
        base_url: str,
        session: ApiSession,
        stream: rest.RestStream,
        paginator: rest_paging.PaginatorConfig | None,
        is_merged: bool,
        is_entity: bool,
        report_list: Callable[[str], None],
        warn: Callable[[str], None],
        ends: float,
    ) -> None:
        self._where, self._stream, self._config, self._is_merged, self._ends = where, stream, paginator, is_merged, ends
        self._warn = warn
        self._client = _Client(where, base_url=base_url, session=session, guessing=stream.data is None, is_entity=is_entity, report_list=report_list)
        self._selector = compile_path(stream.data, "data", where) if stream.data else None
        self._is_entity, self._has_rows = is_entity, False
        build_paginator(paginator, where)

    def read(self, path: str, params: Mapping[str, str | int]) -> Iterator[Page]:
        """Yield the non-empty pages below a path.

        Raises:
            SourceError: the server refuses, or its answers do not match the declaration.
            SourceUnavailable: it cannot be reached, or reading takes too long.
        """
        # The session handles refusals; with no hook given, the client would add one.
        paginator, hooks = build_paginator(self._config, self._where), {"response": []}
        paginator = EntityPaginator(paginator) if self._is_entity else paginator
        pages = self._client.paginate(path, params=dict(params), paginator=paginator, data_selector=self._selector, hooks=hooks)  # type: ignore[arg-type]
        previous, short, most, count, hollow = None, False, None, 0, None
        asked: set[str] = set()
        before: list[Any] = []
        while (answer := self._get_next(pages, is_first=not asked)) is not None:
            items, response = list(answer), answer.response
            if time.monotonic() > self._ends:
                raise build_timeout_error(self._where)
            if (address := response.request.url or "") in asked:
                raise SourceError(
                    f"{self._where}: the next page leads back to a page that was read already",
                    remedy="check the paginator against the API; a field that says which page is the last is declared as has_more or done",
                )
            asked.add(address)
            page = self._build_page(len(asked), items, response)
            if isinstance(answer.paginator, EntityPaginator) and answer.paginator.is_object:
                if page.rows or page.strays:
                    yield page
                return
            # Without a key, equal rows may be different ones, so whole answers are compared.
            content = items if self._stream.primary_key else response.content
            if items and content == previous:
                raise SourceError(f"{self._where}: the server gives the same page again and again", remedy="check the paginator: the server seems to ignore it")
            if items and short:
                raise self._build_short_error()
            count += len(items)
            if items and (total := self._get_total(response)) is not None:
                self._check_total(most, total, count)
                most = total
            if not self._is_merged and (shared := _count_shared(before, items)):
                many = f"{shared} rows" if shared > 1 else "row"
                self._warn(
                    f"a page begins with the {many} that the page before it ends with: if they are the same at the source, they are loaded twice."
                    " Declare a primary_key, so that they are merged, or check the paginator"
                )
            if isinstance(self._config, rest_paging.OffsetPaginator):
                short = self._check_length(items, answer.paginator, most if self._config.total else None)
            hollow = hollow or (len(asked) if not items and self._lacks_rows(response, len(asked), most) else None)
            previous, before = content, items
            if items:
                yield page
        self._warn_of_missing(most, count, hollow)

    def _warn_of_missing(self, total: int | None, count: int, hollow: int | None) -> None:
        """Warn of rows or pages that the API counts and has not given."""
        if total is not None and count < total and isinstance(self._config, rest_paging.OffsetPaginator):
            self._warn(f"the API says that there are {total:,} rows, and gave {count:,}: some may be hidden from this login")
        if hollow is not None:
            self._warn(f"page {hollow} is empty, although the API counts it among its pages: its rows may be hidden from this login")

    def _build_page(self, number: int, items: list[Any], response: Response) -> Page:
        repeated = get_repeated(response)
        if repeated and len(repeated) > sum(1 for _ in find_repeated(items)):
            raise SourceError(
                f"{self._where}: the answer of {show_url(response.url)} names {repeated[-1].repeated!r} twice outside of its rows",
                remedy="ask the API's owner which of the two values is right",
            )
        page = build_page(number, items, has_repeated=bool(repeated))
        self._has_rows = self._has_rows or bool(page.rows)
        if not self._has_rows and any(not isinstance(value, dict) for _, value in page.strays):
            # A stray among rows is a bad row. If there are only strays, the selector has not found a list of rows.
            raise SourceError(f"{self._where}: the rows at {show_url(response.url)} are not JSON objects", remedy="let `data` point at the list of rows")
        return page

    def _get_next(self, pages: Iterator[Any], *, is_first: bool) -> Any:
        try:
            return next(pages, None)
        except RefusedRequest as error:
            return self._end_at(error, is_first=is_first)
        except FabricError:
            raise
        except PagingError as error:
            raise SourceError(f"{self._where}: {error.message}", remedy=error.remedy) from None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if is_own_fault(error):
                raise
        # dlt's own message quotes the whole answer.
        wanted = getattr(self._config, "total", None) or getattr(self._config, "next", None)
        names = f" in `{wanted}`" if wanted else ""
        raise SourceError(f"{self._where}: the answer does not say how to go on{names}", remedy="check the paginator's JSONPath against an answer of the API")

    def _end_at(self, error: RefusedRequest, *, is_first: bool) -> None:
        """Accept a refusal as the end of the pages if the stream declares it; not for the first page."""
        config = self._config
        if is_first or not isinstance(config, rest_paging.PageNumberPaginator | rest_paging.OffsetPaginator):
            raise error
        if config.end_status == error.status:
            return
        if config.end_status is None and error.status in {400, 404, 410, 416, 422} and not (config.total or config.has_more or config.done):
            raise RefusedRequest(
                error.message, remedy=f"if this is how the API answers a page past the last one, declare `end_status: {error.status}`", status=error.status
            )
        raise error

    def _get_total(self, response: Response) -> int | None:
        """The number of rows or pages; dlt has already refused a value that is not a number."""
        path = getattr(self._config, "total", None)
        return int(jsonpath.find_values(path, response.json())[0]) if path else None

    def _lacks_rows(self, response: Response, number: int, most: int | None) -> bool:
        """Whether an empty page is one of those that the API counts; the only page may be empty."""
        if not isinstance(self._config, rest_paging.PageNumberPaginator) or not self._config.total:
            return False
        total = most if is_empty(response) else self._get_total(response)
        return total is not None and max(number, 2) <= total

    def _check_total(self, before: int | None, total: int, count: int) -> None:
        """Refuse a total that is impossible, or that has changed, so that rows have moved between pages.

        If it grows, some rows come twice, which is harmless if they are merged.

        Args:
            count: the number of rows read so far.
        """
        counts_rows = isinstance(self._config, rest_paging.OffsetPaginator)
        if total < (count if counts_rows else 1) and before in (None, total):
            raise SourceError(
                f"{self._where}: the total is {total}, although {count} rows were read",
                remedy=f"let the paginator's `total` be the JSONPath of the number of {'rows' if counts_rows else 'pages'}, or leave it out",
            )
        if before is None or total == before or (total > before and self._is_merged):
            return
        moved = "up would be left out" if total < before else "down would come twice"
        raise SourceUnavailable(
            f"{self._where}: the total went from {before} to {total} while the pages were read, so that rows which moved {moved}",
            remedy="the load tries again later. If the total changes all the time, use pages by link or cursor, or merge with a primary_key",
        )

    def _check_length(self, rows: list[Any], paginator: Any, total: int | None) -> bool:
        """Whether the page is shorter than requested, so that it must be the last one."""
        paginator = paginator.inner if isinstance(paginator, EntityPaginator) else paginator
        if not isinstance(paginator, Offset):
            return False
        if len(rows) > paginator.limit:
            raise SourceError(
                f"{self._where}: the server gives {len(rows)} rows a page where `limit` asks for {paginator.limit}, so the next offset would bring rows again",
                remedy="set the paginator's limit to the rows that the server gives a page",
            )
        if not rows or len(rows) == paginator.limit:
            return False
        # The paginator is already at the next page.
        if total is not None and paginator.current_value - paginator.limit + len(rows) < total:
            raise self._build_short_error()
        return True

    def _build_short_error(self) -> SourceError:
        return SourceError(
            f"{self._where}: the server gives fewer rows a page than `limit` asks for, so the next offset would leave rows out",
            remedy="set the paginator's limit to what the server allows",
        )


class _Client(RESTClient):
    """dlt's client, changed to refuse instead of guess, and to parse each answer once."""

    def __init__(self, where: str, *, base_url: str, session: ApiSession, guessing: bool, is_entity: bool, report_list: Callable[[str], None]) -> None:
        super().__init__(base_url, session=session)
        self._where, self._session, self._guessing, self._is_entity, self._report_list = where, session, guessing, is_entity, report_list

    def detect_data_selector(self, response: Response) -> str:
        if self._session.read(response) is None or self._is_entity:
            return "$"
        selector = super().detect_data_selector(response)
        if selector != "$":
            self._report_list(selector)
        return selector

    def extract_response(self, response: Response, data_selector: jsonpath.TJsonPath) -> list[Any]:
        body = self._session.read(response)
        if body is None:
            return []
        rows = self._find_rows(response, data_selector, body)
        if (self._guessing or not rows) and _holds_error(body, lines=self._session.reads_lines):
            said = self._session.quote(response)
            raise SourceError(
                f"{self._where}: the answer of {show_url(response.url)} holds an error in place of rows{said}",
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
                f"{self._where}: `{data_selector}` matches nothing in the answer of {show_url(response.url)}, which holds: {fields or 'nothing'}",
                remedy="let `data` be the JSONPath of the list of rows",
            )
        if len(values) == 1:
            only = values[0]
            # Some servers write an empty list as null, others as {}. As an item of a list, {} is a row.
            if only is None or (only == {} and not str(data_selector).endswith("*")):
                return []
            return only if isinstance(only, list) else [only]
        return list(chain.from_iterable(values)) if all(isinstance(value, list) for value in values) else values

    def detect_paginator(self, response: Response, data: Any) -> BasePaginator:
        return detect_paginator(response, data)


def _holds_error(body: Any, *, lines: bool) -> bool:
    if lines and isinstance(body, list):
        return ends_in_failure(body)
    return isinstance(body, dict) and bool(body.get("error") or body.get("errors") or reports_failure(body))


def _count_shared(before: list[Any], rows: list[Any]) -> int:
    """The number of rows at the end of a page that the next page repeats at its beginning."""
    if not rows:
        return 0
    starts = (start for start in range(max(0, len(before) - len(rows)), len(before)) if before[start] == rows[0])
    return next((len(before) - start for start in starts if before[start:] == rows[: len(before) - start]), 0)


def _matches_empty_list(selector: Any, body: Any) -> bool:
    """Whether a path like `data.rows[*]` ends in an existing, empty list."""
    text = str(selector)
    before = text.partition("[")[0].partition("*")[0].rstrip(".")
    return before != text and bool(jsonpath.find_values(before or "$", body))
