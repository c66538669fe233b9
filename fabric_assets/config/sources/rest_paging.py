"""How the pages of a `rest_api` stream follow each other. Words follow dlt's rest_api."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from fabric_assets.config.base import CheckedModel, FabricModel, Path, Text, Whole


class HeaderLinkPaginator(FabricModel):
    """The next page's address stands in the Link header (RFC 8288)."""

    type: Literal["header_link"] = Field(description="The next page's address stands in the Link header.")
    rel: Text = Field(default="next", description="Relation of the link to the next page.")


class EndedPaginator(CheckedModel):
    """Base of the paginators of answers that may say themselves whether they are the last."""

    has_more: Text | None = Field(default=None, description="JSONPath of a truth value that is false on the last page, e.g. has_more.")
    done: Text | None = Field(default=None, description="JSONPath of a truth value that is true on the last page, e.g. end_of_stream.")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield the keys that say a second time which page is the last."""
        if self.has_more and self.done:
            yield ("done",), "has_more says already which page is the last; drop one of the two"


class JsonLinkPaginator(EndedPaginator):
    """The next page's address stands in the answer."""

    type: Literal["json_link"] = Field(description="The next page's address stands in the answer.")
    next: Text = Field(description="JSONPath of the next page's URL, e.g. paging.next.")


class CountedPaginator(EndedPaginator):
    """Base of the paginators that count; without a word on the end an empty page is the last."""

    end_status: Annotated[Whole, Field(ge=400, le=499)] | None = Field(
        default=None, description="Status that a page past the last one is answered with, e.g. 404; default: every refusal fails the load."
    )

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield the keys that say a second time which page is the last."""
        yield from super().find_contradictions()
        if self.end_status and (known := next((key for key in ("total", "has_more", "done") if getattr(self, key, None)), None)):
            yield ("end_status",), f"{known} says already which page is the last, so a refusal before it is no end; drop one of the two"


class PageNumberPaginator(CountedPaginator):
    """Pages are counted."""

    type: Literal["page_number"] = Field(description="Pages are counted.")
    param: Text = Field(default="page", description="Query parameter of the page number.")
    base: Whole = Field(default=1, ge=0, description="Number of the first page.")
    total: Text | None = Field(default=None, description="JSONPath of the number of pages; without it an empty page is the last.")


class OffsetPaginator(CountedPaginator):
    """Rows are counted."""

    type: Literal["offset"] = Field(description="Rows are counted.")
    limit: Whole = Field(ge=1, le=100_000, description="Rows a page.")
    offset_param: Text = Field(default="offset", description="Query parameter of the first row's number.")
    limit_param: Text = Field(default="limit", description="Query parameter of the number of rows.")
    total: Text | None = Field(default=None, description="JSONPath of the number of rows; without it an empty page is the last.")


class CursorPaginator(EndedPaginator):
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
