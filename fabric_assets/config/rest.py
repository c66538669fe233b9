"""What a `rest_api` source declares beside its streams' keys: auth, pages, parents. Words follow dlt's rest_api."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import Field

from fabric_assets.config.base import FabricModel, HttpUrlOrReference, Identifier, Name, Path, SecretRef, Text, TextOrReference, Whole
from fabric_assets.config.streams import CursorConfig, RenamingStream, find_cursor_contradictions
from fabric_assets.config.suggestions import suggest

_PARENT = re.compile(r"\{([^{}]*)\}")
_PARENT_FIELD = re.compile(r"^([a-z][a-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_.]*)$")
_CREDENTIAL = re.compile(r"(^|[_-])(authorization|cookie|(api|access|secret|private|auth)[_-]?key|token|secret|password|passwd|pwd)($|[_-])", re.IGNORECASE)


_ORIGIN = re.compile(r"^https?://(\[[0-9A-Fa-f:.]+\]|[^\s@\[\]:/?#\\]+)(:\d{1,5})?$")


class BearerAuth(FabricModel):
    """A token in the Authorization header."""

    type: Literal["bearer"] = Field(description="A token in the Authorization header.")
    token: SecretRef = Field(description="Where the token is kept.")


class ApiKeyAuth(FabricModel):
    """A key in a header; never in the query, where logs and exceptions would show it."""

    type: Literal["api_key"] = Field(description="A key in a header of its own.")
    name: Text = Field(default="X-API-Key", description="Header that carries the key.")
    key: SecretRef = Field(description="Where the key is kept.")


class BasicAuth(FabricModel):
    """User and password (RFC 7617)."""

    type: Literal["basic"] = Field(description="User and password.")
    username: TextOrReference = Field(description="The user, or where the name is kept.")
    password: SecretRef = Field(description="Where the password is kept.")


class OAuth2ClientCredentials(FabricModel):
    """A token fetched with the client's own credentials (RFC 6749, 4.4)."""

    type: Literal["oauth2_client_credentials"] = Field(description="A token fetched with the client's own credentials.")
    token_url: HttpUrlOrReference = Field(description="Where tokens are given out.")
    client_id: TextOrReference = Field(description="The client's name, or where it is kept.")
    client_secret: SecretRef = Field(description="Where the client's secret is kept.")
    scope: Text | None = Field(default=None, description="What the token is asked for.")


AuthConfig = Annotated[BearerAuth | ApiKeyAuth | BasicAuth | OAuth2ClientCredentials, Field(discriminator="type")]


class HeaderLinkPaginator(FabricModel):
    """The next page's address stands in the Link header (RFC 8288)."""

    type: Literal["header_link"] = Field(description="The next page's address stands in the Link header.")
    rel: Text = Field(default="next", description="Relation of the link to the next page.")


class JsonLinkPaginator(FabricModel):
    """The next page's address stands in the answer."""

    type: Literal["json_link"] = Field(description="The next page's address stands in the answer.")
    next: Text = Field(description="JSONPath of the next page's URL, e.g. paging.next.")


class PageNumberPaginator(FabricModel):
    """Pages are counted; without `total` an empty page is the last."""

    type: Literal["page_number"] = Field(description="Pages are counted.")
    param: Text = Field(default="page", description="Query parameter of the page number.")
    base: Whole = Field(default=1, ge=0, description="Number of the first page.")
    total: Text | None = Field(default=None, description="JSONPath of the number of pages; without it an empty page is the last.")


class OffsetPaginator(FabricModel):
    """Rows are counted; without `total` an empty page is the last."""

    type: Literal["offset"] = Field(description="Rows are counted.")
    limit: Whole = Field(ge=1, le=100_000, description="Rows a page.")
    offset_param: Text = Field(default="offset", description="Query parameter of the first row's number.")
    limit_param: Text = Field(default="limit", description="Query parameter of the number of rows.")
    total: Text | None = Field(default=None, description="JSONPath of the number of rows; without it an empty page is the last.")


class CursorPaginator(FabricModel):
    """The answer names the next page's cursor; none, or an empty one, ends the stream."""

    type: Literal["cursor"] = Field(description="The answer names the next page's cursor.")
    next: Text = Field(description="JSONPath of the cursor in the answer.")
    param: Text = Field(default="cursor", description="Query parameter that takes the cursor.")


class SinglePagePaginator(FabricModel):
    """All rows come in one answer."""

    type: Literal["single_page"] = Field(description="All rows come in one answer.")


PaginatorConfig = Annotated[
    HeaderLinkPaginator | JsonLinkPaginator | PageNumberPaginator | OffsetPaginator | CursorPaginator | SinglePagePaginator,
    Field(discriminator="type"),
]


class RestCursor(CursorConfig):
    """An incremental field, and the query parameter that asks for what is newer."""

    param: Text = Field(description="Query parameter that takes the last value.")


class RestStream(RenamingStream):
    """One endpoint. A path may take a field of another stream: `orders/{orders.id}/items`."""

    path: Text = Field(description="Below base_url; `{stream.field}` takes a field of a parent stream, once per parent row.")
    params: dict[Text, Text | int | bool] = Field(default={}, description="Query parameters; no credentials.")
    data: Text | None = Field(default=None, description="JSONPath of the rows in the answer; default: found by dlt.")
    paginator: PaginatorConfig | None = Field(default=None, description="Default: the source's, else found by dlt.")
    include_from_parent: tuple[Identifier, ...] = Field(default=(), description="Fields of the parent row to keep, as `_<parent>_<field>`.")
    cursor: RestCursor | None = Field(default=None, description="Makes the load incremental.")

    def get_parent(self) -> tuple[str, str] | None:
        """The parent stream and the field that the path takes; None for a stream of its own."""
        return get_parent(self.path)

    def get_query(self) -> dict[str, str | int]:
        """The query parameters as APIs expect them: true, not True."""
        return {name: str(value).lower() if isinstance(value, bool) else value for name, value in self.params.items()}

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield what would lose rows, or carry a credential to where it does not belong."""
        yield from super().find_contradictions()
        yield from find_cursor_contradictions(self, self.cursor)
        if "://" in self.path or self.path.startswith("//"):
            yield ("path",), "must lie below base_url: a token must not follow to another host"
        parent = self.get_parent()
        taken = _PARENT.findall(self.path)
        for inner in taken:
            if not _PARENT_FIELD.fullmatch(inner):
                yield ("path",), f"{{{inner}}} is no parent's field; write {{stream.field}}"
        if len(taken) > 1:
            yield ("path",), "takes more than one parent field; it can take one"
        if parent and self.cursor:
            yield ("cursor",), "a child stream cannot have a cursor; give the parent one"
        if self.include_from_parent and not parent:
            yield ("include_from_parent",), "needs a path with {stream.field}"
        for name in self.params:
            if is_credential(name):
                yield ("params", name), "query parameters stand in logs: a credential belongs under auth, as a reference"
            elif self.cursor and name == self.cursor.param:
                yield ("params", name), "is the cursor's parameter; drop it here"


def is_origin(url: str) -> bool:
    """Whether a URL is scheme, host and port alone."""
    return _ORIGIN.fullmatch(url) is not None


def is_credential(name: str) -> bool:
    """Whether a header or query parameter is called like a credential."""
    return _CREDENTIAL.search(name) is not None


def get_parent(path: str) -> tuple[str, str] | None:
    """The stream and the field in a path's first `{stream.field}`; None where there is none."""
    for inner in _PARENT.findall(path):
        if match := _PARENT_FIELD.fullmatch(inner):
            return match[1], match[2]
    return None


def find_orphans(paths: Mapping[Name, str]) -> Iterator[tuple[Path, str]]:
    """Yield the streams whose parent is not declared, or that are an ancestor of their own.

    Args:
        paths: each stream of one source with its path.
    """
    for name, path in paths.items():
        seen, parent = [name], get_parent(path)
        while parent:
            if parent[0] not in paths:
                if len(seen) == 1:
                    yield ("streams", name, "path"), f"the parent '{parent[0]}' is no stream of this source{suggest(parent[0], paths)}"
                break
            if parent[0] in seen:
                if parent[0] == name:
                    yield ("streams", name, "path"), f"parents form a circle: {' -> '.join([*seen, parent[0]])}"
                break
            seen.append(parent[0])
            parent = get_parent(paths[parent[0]])


def find_forgotten_children(streams: Mapping[Name, RestStream]) -> Iterator[tuple[Path, str]]:
    """Yield the replaced streams below a parent with a cursor: they are read for its new rows alone, so the others' would be dropped."""
    for name, stream in streams.items():
        seen, parent = {name}, get_parent(stream.path)
        while parent and parent[0] in streams and parent[0] not in seen:
            if streams[parent[0]].cursor and stream.disposition == "replace":
                yield (
                    ("streams", name),
                    f"replace would drop the rows of all {parent[0]} but the new ones; declare a primary_key (merge), or drop the cursor of {parent[0]}",
                )
                break
            seen.add(parent[0])
            parent = get_parent(streams[parent[0]].path)
