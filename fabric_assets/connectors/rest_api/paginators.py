"""A stream's `paginator:` -> dlt's paginator, changed to raise an error where it would silently end too early.

A load that mistakes a page for the last one loses the rows of the later pages, and reports success.
"""

from itertools import chain
from typing import Any
from urllib.parse import urljoin

from dlt.common import jsonpath
from dlt.sources.helpers.rest_client.detector import json_links_detector
from dlt.sources.helpers.rest_client.paginators import (
    BasePaginator,
    HeaderLinkPaginator,
    JSONLinkPaginator,
    JSONResponseCursorPaginator,
    OffsetPaginator,
    PageNumberPaginator,
    RangePaginator,
    SinglePagePaginator,
)
from requests import Request, Response

from fabric_assets.config.sources import rest_paging as config
from fabric_assets.connectors.rest_api.links import find_link
from fabric_assets.connectors.rest_api.more import find_claim, find_header_signs, find_signs, is_empty
from fabric_assets.errors import ConfigurationError
from fabric_assets.own_faults import is_own_fault

# True and False are 1 and 0 as well.
_TRUTH = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
_CHECK = "check the paginator against an answer of the API"


class PagingError(Exception):
    """An answer does not show how to get the next page, or contradicts itself.

    Args:
        message: does not quote the answer.
    """

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message)
        self.message, self.remedy = message, remedy


class _End:
    """The field of an answer that says whether it is the last one."""

    def __init__(self, field: str, path: str, where: str, *, ends_when: bool) -> None:
        self._field, self._text, self._ends_when = field, path, ends_when
        self._path = compile_path(path, f"paginator.{field}", where)

    def is_last(self, body: Any) -> bool:
        values = jsonpath.find_values(self._path, body)
        value = values[0] if values else None
        truth = _TRUTH.get(value.lower() if isinstance(value, str) else value) if isinstance(value, str | int) else None
        if truth is None:
            raise PagingError(
                f"the answer does not say how to go on in `{self._text}`", f"let the paginator's {self._field} be the JSONPath of a truth value of every answer"
            )
        return truth is self._ends_when


class _Ending(BasePaginator):
    """A paginator that ends if the answer says so, and refuses to end if the answer says that there are more pages."""

    end: _End | None = None
    _has_next_page: bool

    def end_or_go_on(self, response: Response, *, is_empty: bool) -> None:
        """End, or check that there is a next page.

        Args:
            is_empty: the answer has no content, so it does not show the end.
        """
        if is_empty or self.end is None:
            return
        if self.end.is_last(response.json()):
            self._has_next_page = False
        elif not self._has_next_page:
            raise PagingError(
                "the answer says that there are more pages, and not how to ask for the next one", "check the paginator against an answer of the API"
            )


class _Link(_Ending):
    """A paginator that resolves links against the answer's address, which may differ from the requested one."""

    def follow(self, response: Response, link: Any, data: list[Any] | None) -> None:
        if link and not isinstance(link, str):
            raise PagingError("the link to the next page is not a text", "let the paginator's `next` be the JSONPath of its URL")
        # An empty link means none, as null does.
        self._next_reference = urljoin(response.url, link) if link else None
        self.end_or_go_on(response, is_empty=is_empty(response))
        if not self._has_next_page and self.end is None:
            _check_end(response, data or [])


class HeaderLink(_Link, HeaderLinkPaginator):
    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        try:
            link = find_link(response.headers.get("Link", ""), rel=self.links_next_key, url=response.url)
        except ValueError as error:
            raise PagingError(f"the Link header is not valid: {error}", "check the API, or declare another paginator") from None
        self.follow(response, link, data)


class JsonLink(_Link, JSONLinkPaginator):
    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        values = [] if is_empty(response) else jsonpath.find_values(self.next_url_path, response.json())
        self.follow(response, values[0] if values else None, data)


class Cursor(_Ending, JSONResponseCursorPaginator):
    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        values = [] if is_empty(response) else jsonpath.find_values(self.cursor_path, response.json())
        cursor = values[0] if values and values[0] else None
        if isinstance(cursor, dict | list | bool):
            raise PagingError("the cursor of the next page is neither text nor a number", "let the paginator's `next` be the JSONPath of the cursor")
        self._next_reference = cursor
        self.end_or_go_on(response, is_empty=is_empty(response))
        if not self._has_next_page and self.end is None:
            _check_end(response, data or [])


class _Counted(_Ending, RangePaginator):
    """A paginator that counts. It continues after an answer without content if an earlier one has named the total."""

    _total: int | None = None

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        if not is_empty(response):
            super().update_state(response, data)
            if self.total_path and self._has_next_page:
                self._total = int(jsonpath.find_values(self.total_path, response.json())[0])
        elif self._total is None:
            self._has_next_page = False
        else:
            self.current_value += self.value_step
            self._has_next_page = self.current_value < self._total + self.base_index
        self.end_or_go_on(response, is_empty=is_empty(response))


class PageNumber(_Counted, PageNumberPaginator):
    pass


class Offset(_Counted, OffsetPaginator):
    pass


class EntityPaginator(BasePaginator):
    """A paginator for an endpoint of one row. It ends at an object, which is the row itself, and leaves a list to the inner paginator.

    Args:
        inner: None detects it.
    """

    def __init__(self, inner: BasePaginator | None) -> None:
        super().__init__()
        self.inner, self.is_object = inner, False

    @property
    def has_next_page(self) -> bool:
        return not self.is_object and (self.inner is None or self.inner.has_next_page)

    def init_request(self, request: Request) -> None:
        if self.inner is not None:
            self.inner.init_request(request)

    def update_state(self, response: Response, data: list[Any] | None = None) -> None:
        self.is_object = not is_empty(response) and isinstance(response.json(), dict)
        if not self.is_object:
            self.inner = self.inner or detect_paginator(response, data or [])
            self.inner.update_state(response, data)

    def update_request(self, request: Request) -> None:
        if self.inner is not None and self.has_next_page:
            self.inner.update_request(request)


def build_paginator(declared: config.PaginatorConfig | None, where: str) -> BasePaginator | None:
    """Build a paginator for one pass over an endpoint; None if it is to be detected.

    Raises:
        ConfigurationError: a JSONPath is not valid.
    """
    paginator: BasePaginator
    match declared:
        case None:
            return None
        case config.HeaderLinkPaginator():
            return HeaderLink(links_next_key=declared.rel)
        case config.SinglePagePaginator():
            return SinglePagePaginator()
        case config.JsonLinkPaginator():
            paginator = JsonLink(compile_path(declared.next, "paginator.next", where))
        case config.CursorPaginator():
            paginator = Cursor(compile_path(declared.next, "paginator.next", where), cursor_param=declared.param)
        case config.PageNumberPaginator():
            total = compile_path(declared.total, "paginator.total", where) if declared.total else None
            paginator = _count(PageNumber(base_page=declared.base, page_param=declared.param, total_path=total), declared)
        case config.OffsetPaginator():
            total = compile_path(declared.total, "paginator.total", where) if declared.total else None
            paginator = _count(Offset(declared.limit, offset_param=declared.offset_param, limit_param=declared.limit_param, total_path=total), declared)
    if isinstance(declared, config.EndedPaginator) and isinstance(paginator, _Ending):
        if declared.has_more:
            paginator.end = _End("has_more", declared.has_more, where, ends_when=False)
        elif declared.done:
            paginator.end = _End("done", declared.done, where, ends_when=True)
    return paginator


def _count(paginator: "_Counted", declared: config.PageNumberPaginator | config.OffsetPaginator) -> "_Counted":
    # If the answers say which page is the last, an empty page is not the end: its rows may be hidden from this login.
    paginator.stop_after_empty_page = not (declared.total or declared.has_more or declared.done)
    return paginator


def detect_paginator(response: Response, rows: list[Any]) -> BasePaginator:
    """Detect from the first answer how to request the next page.

    Raises:
        PagingError: there are more pages, but how to request them is not certain.
    """
    try:
        link = find_link(response.headers.get("Link", ""), rel="next", url=response.url)
    except ValueError as error:
        raise PagingError(f"the Link header is not valid: {error}", "declare `paginator`") from None
    if link:
        return HeaderLink()
    if is_empty(response):
        return SinglePagePaginator()
    found, score = json_links_detector(response)
    if found is not None and score == 1:
        return JsonLink(found.next_url_path)
    # dlt would go on with its defaults: a wrong first page number or parameter name leaves rows out.
    if sign := next(chain(find_header_signs(response, rows), find_signs(response.json(), rows)), None):
        raise PagingError(f"the answers come in pages (`{sign}`), but how to ask for the next one is not certain", "declare `paginator`")
    return SinglePagePaginator()


def _check_end(response: Response, rows: list[Any]) -> None:
    """Refuse to end at an answer that says `has_more: true` or the like, whether or not the paginator declares it."""
    if not is_empty(response) and (claim := find_claim(response.json(), rows)):
        raise PagingError(f"the answer says `{claim}: true`, and not how to ask for the next page", _CHECK)


def compile_path(path: str, field: str, where: str) -> Any:
    """Compile a JSONPath.

    Raises:
        ConfigurationError: it is not valid.
    """
    try:
        return jsonpath.compile_path(path)
    except Exception as error:
        if is_own_fault(error):
            raise
        # The parser raises plain Exception.
        raise ConfigurationError(f"{where}: {field} `{path}` is not a valid JSONPath: {error}", remedy="e.g. results, or data.items") from None
