"""What one stream of a source is: its key, its cursor, how it is written. Shared by the source types."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from fabric_assets.config.base import Duration, FabricModel, Text

WriteDisposition = Literal["append", "replace", "merge"]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


ColumnNames = Annotated[
    tuple[Text, ...],
    BeforeValidator(_as_tuple),
    Field(min_length=1, max_length=100, json_schema_extra={"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class CursorConfig(FabricModel):
    """The column whose highest value says how far the last load came."""

    field: Text = Field(description="Column, or dotted path, in the source's own spelling.")
    initial: str | int | None = Field(None, description="Where the first load begins; default: the beginning.")
    lag: Duration | Annotated[int, Field(ge=0)] | None = Field(
        None, description="How far before the last value a load begins again, for rows that arrive late: a duration, or a number for numeric cursors."
    )


class StreamConfig(FabricModel):
    """Base of every stream."""

    description: Text | None = Field(None, description="Shown on the asset.")
    primary_key: ColumnNames | None = Field(None, description="The column or columns that make a row unique, in the source's spelling.")
    write_disposition: WriteDisposition | None = Field(
        None, description="Default: merge where a primary key is declared; else replace (databases, APIs) or append (files)."
    )

    @property
    def disposition(self) -> WriteDisposition:
        """The disposition in force, the default included."""
        return self.write_disposition or ("merge" if self.primary_key else "replace")

    @model_validator(mode="after")
    def _can_keep_the_promise(self) -> "StreamConfig":
        if self.write_disposition == "merge" and not self.primary_key:
            raise ValueError("merge needs a primary_key to know which rows are the same; declare one, or use replace")
        if self.primary_key and len(set(self.primary_key)) != len(self.primary_key):
            raise ValueError("primary_key names a column twice")
        return self


def check_cursor(stream: StreamConfig, cursor: CursorConfig | None) -> None:
    """Refuse the combinations that would lose or double rows.

    Raises:
        ValueError: with the reason and the alternatives.
    """
    if stream.disposition == "append" and cursor is None:
        raise ValueError("append without a cursor would load every row again in each run; declare a cursor, or use merge (with primary_key) or replace")
    if stream.disposition == "append" and cursor is not None and cursor.lag is not None:
        raise ValueError("append with a lag would load the lagging rows twice; use merge with a primary_key, or drop the lag")
    if stream.disposition == "replace" and cursor is not None:
        raise ValueError("replace reads the whole stream, so a cursor would drop the older rows; declare a primary_key (merge), use append, or drop the cursor")


def get_duplicates(values: Sequence[str]) -> list[str]:
    """Values that occur more than once, in order."""
    return [value for index, value in enumerate(values) if value in values[:index]]
