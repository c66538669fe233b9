"""`deletes:` of a stream: what happens to rows that the source no longer has."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from fabric_assets.config.base import Duration, FabricModel, Path, Text
from fabric_assets.config.sources.rejects import LimitOfTable, exceeds
from fabric_assets.config.sources.rest_paging import PaginatorConfig
from fabric_assets.suggestions import suggest

DeletesMode = Literal["ignore", "soft", "hard"]


class DeletesConfig(FabricModel):
    """How a load finds and follows deletes at the source, by reading all primary keys."""

    mode: DeletesMode = Field(
        default="ignore",
        description="ignore: rows stay. soft: _fabric_deleted_at says since when the source lacks the row. hard: the row is deleted, and max is written out.",
    )
    every: Duration = Field(default=timedelta(0), description="Shortest time between two reads of the keys: 6h, 1d. Default: each load reads them.")
    max: LimitOfTable = Field(default="10%", description="A share of the table's rows, or a number of rows; a load that would delete more deletes nothing.")

    def is_exceeded(self, rows: int, deleted: int) -> bool:
        """Whether a load would delete more than `max` allows.

        Args:
            rows: of the table, without those that are marked as deleted.
        """
        return exceeds(self.max, deleted, rows)


class RestDeletesConfig(DeletesConfig):
    """How a load finds and follows deletes at an API: by reading all pages again, without the cursor's parameter."""

    path: Text | None = Field(default=None, description="Below base_url: an endpoint that lists all objects. Default: the stream's.")
    params: dict[Text, Text | int | bool] = Field(default={}, description="Query parameters beside the stream's, e.g. `{fields: id}`; no credentials.")
    data: Text | None = Field(default=None, description="JSONPath of the objects in the answer; default: the stream's.")
    paginator: PaginatorConfig | None = Field(default=None, description="Default: the stream's.")

    def list_own(self) -> list[str]:
        """List the keys that say where the primary keys are read, other than the rows."""
        return [key for key in ("path", "params", "data", "paginator") if getattr(self, key)]


class _OneWord:
    """Lets `deletes: soft` stand for `{mode: soft}`, in YAML and in the JSON Schema."""

    @staticmethod
    def spread(value: object) -> object:
        if not isinstance(value, str):
            return value
        if value not in get_args(DeletesMode):
            raise ValueError(f"is not one of the words allowed{suggest(value, get_args(DeletesMode))}")
        return {"mode": value}

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        # `hard` needs `max`, so it is no word by itself.
        return {"anyOf": [{"type": "string", "enum": ["ignore", "soft"]}, handler(schema)]}


_AS_ONE_WORD = (BeforeValidator(_OneWord.spread), _OneWord())
Deletes = Annotated[DeletesConfig, *_AS_ONE_WORD]
RestDeletes = Annotated[RestDeletesConfig, *_AS_ONE_WORD]


def find_delete_contradictions(deletes: DeletesConfig, disposition: str) -> Iterator[tuple[Path, str]]:
    """Yield what `deletes` cannot do."""
    if deletes.mode == "ignore":
        return
    if disposition == "replace":
        yield ("deletes",), "replace writes all rows anew, so that deleted rows go by themselves; leave deletes out, or declare a primary_key (merge)"
    elif disposition == "append":
        yield ("deletes",), "append keeps each version of a row; use merge with a primary_key, or leave deletes out"
    if deletes.mode == "hard" and "max" not in deletes.model_fields_set:
        yield ("deletes",), "hard deletes rows for good: write out the most that one load may delete, as in {mode: hard, max: 10%}"


@dataclass(frozen=True)
class DeletesCheck:
    """The automatic check of a stream that follows deletes."""

    name: str = "source_deletes"
    description: str = "The last read of the source's keys was complete, and did not find more deletes than deletes.max."
    severity: Literal["error", "warn"] = "error"
