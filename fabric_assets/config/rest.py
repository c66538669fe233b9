"""What a `rest_api` source declares beside its streams' keys: auth, pages, parents. Words follow dlt's rest_api."""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fabric_assets.config.base import FabricModel, Name, SecretRef, Text
from fabric_assets.config.streams import CursorConfig, StreamConfig, check_cursor

_PARENT = re.compile(r"\{([^{}]*)\}")
_PARENT_FIELD = re.compile(r"^([a-z][a-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_.]*)$")


class BearerAuth(FabricModel):
    type: Literal["bearer"]
    token: SecretRef


class ApiKeyAuth(FabricModel):
    """A key in a header; never in the query, where logs and exceptions would show it."""

    type: Literal["api_key"]
    name: Text = Field("X-API-Key", description="Header that carries the key.")
    key: SecretRef


class BasicAuth(FabricModel):
    type: Literal["basic"]
    username: Text | SecretRef
    password: SecretRef


class OAuth2ClientCredentials(FabricModel):
    type: Literal["oauth2_client_credentials"]
    token_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$", max_length=2000)] | SecretRef
    client_id: Text | SecretRef
    client_secret: SecretRef
    scope: Text | None = None


AuthConfig = Annotated[BearerAuth | ApiKeyAuth | BasicAuth | OAuth2ClientCredentials, Field(discriminator="type")]


class HeaderLinkPaginator(FabricModel):
    """The next page's address stands in the Link header (RFC 8288)."""

    type: Literal["header_link"]
    rel: Text = "next"


class JsonLinkPaginator(FabricModel):
    """The next page's address stands in the answer."""

    type: Literal["json_link"]
    next: Text = Field(description="JSONPath of the next page's URL, e.g. paging.next.")


class PageNumberPaginator(FabricModel):
    """Pages are counted; without `total` an empty page is the last."""

    type: Literal["page_number"]
    param: Text = Field("page", description="Query parameter of the page number.")
    base: int = Field(1, ge=0, description="Number of the first page.")
    total: Text | None = Field(None, description="JSONPath of the number of pages.")


class OffsetPaginator(FabricModel):
    """Rows are counted; without `total` an empty page is the last."""

    type: Literal["offset"]
    limit: int = Field(ge=1, le=100_000, description="Rows a page.")
    offset_param: Text = "offset"
    limit_param: Text = "limit"
    total: Text | None = Field(None, description="JSONPath of the number of rows.")


class CursorPaginator(FabricModel):
    """The answer names the next page's cursor; none, or an empty one, ends the stream."""

    type: Literal["cursor"]
    next: Text = Field(description="JSONPath of the cursor in the answer.")
    param: Text = Field("cursor", description="Query parameter that takes the cursor.")


class SinglePagePaginator(FabricModel):
    """All rows come in one answer."""

    type: Literal["single_page"]


PaginatorConfig = Annotated[
    HeaderLinkPaginator | JsonLinkPaginator | PageNumberPaginator | OffsetPaginator | CursorPaginator | SinglePagePaginator,
    Field(discriminator="type"),
]


class RestCursor(CursorConfig):
    """An incremental field, and the query parameter that asks for what is newer."""

    param: Text = Field(description="Query parameter that takes the last value.")


class RestStream(StreamConfig):
    """One endpoint. A path may take a field of another stream: `orders/{orders.id}/items`."""

    path: Text = Field(description="Below base_url; `{stream.field}` takes a field of a parent stream, once per parent row.")
    params: dict[Text, str | int | bool] = Field({}, description="Query parameters; no credentials.")
    data: Text | None = Field(None, description="JSONPath of the rows in the answer; default: found by dlt.")
    paginator: PaginatorConfig | None = Field(None, description="Default: the source's, else found by dlt.")
    include_from_parent: tuple[Text, ...] = Field((), description="Fields of the parent row to keep, as `_<parent>_<field>`.")
    cursor: RestCursor | None = Field(None, description="Makes the load incremental.")

    def get_parent(self) -> tuple[str, str] | None:
        """The parent stream and the field that the path takes; None for a stream of its own."""
        for inner in _PARENT.findall(self.path):
            match = _PARENT_FIELD.fullmatch(inner)
            if match is None:
                raise ValueError(f"path has {{{inner}}}, which is no parent's field; write {{stream.field}}")
            return match[1], match[2]
        return None

    @model_validator(mode="after")
    def _consistent(self) -> "RestStream":
        if "://" in self.path or self.path.startswith("//"):
            raise ValueError("path must lie below base_url; a token must not follow to another host")
        check_cursor(self, self.cursor)
        parent = self.get_parent()
        if len(_PARENT.findall(self.path)) > 1:
            raise ValueError("path takes more than one parent field; it can take one")
        if parent and self.cursor:
            raise ValueError("a child stream cannot have a cursor; give the parent one")
        if self.include_from_parent and not parent:
            raise ValueError("include_from_parent needs a path with {stream.field}")
        return self


def check_parents(streams: Mapping[Name, RestStream]) -> None:
    """Refuse a parent that is not declared, or is a child of its own child.

    Raises:
        ValueError: naming the stream.
    """
    for name, stream in streams.items():
        seen, parent = [name], stream.get_parent()
        while parent:
            if parent[0] not in streams:
                raise ValueError(f"stream {seen[-1]}: the path's parent {parent[0]} is not a stream of this source; known: {', '.join(sorted(streams))}")
            if parent[0] in seen:
                raise ValueError(f"stream {name}: parents form a circle: {' -> '.join([*seen, parent[0]])}")
            seen.append(parent[0])
            parent = streams[parent[0]].get_parent()
