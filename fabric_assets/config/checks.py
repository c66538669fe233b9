"""The `checks:` block: what must hold of a raw stream after each load."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fabric_assets.config.base import Duration, FabricModel, Flag, Identifier, Text, Whole, refuse
from fabric_assets.config.sources.rejects import LimitOfSource, exceeds


class CheckConfig(FabricModel):
    """Base of every check."""

    severity: Literal["error", "warn"] = Field(default="error", description="error fails `fabric run`; warn is only shown.")
    blocking: Flag = Field(default=False, description="If the check fails, downstream models are skipped in this run.")


class RowCountCheck(CheckConfig):
    """The table holds at least `min` and at most `max` rows."""

    type: Literal["row_count"] = Field(description="How many rows the table holds.")
    min: Whole | None = Field(default=None, ge=0, description="Fewest rows allowed.")
    max: Whole | None = Field(default=None, ge=0, description="Most rows allowed.")

    @model_validator(mode="after")
    def _bounds(self) -> "RowCountCheck":
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            refuse([(("min",), "is greater than max")])
        return self


class SourceRowCountCheck(CheckConfig):
    """The table holds as many rows as its source held when the last load read it."""

    type: Literal["source_row_count"] = Field(description="How many rows the source holds; for streams of sql_database.")
    max_difference: LimitOfSource = Field(default=0, description="Greatest difference allowed: a share of the source's rows, as in 1%, or a number of rows.")

    def is_exceeded(self, source_rows: int, rows: int) -> bool:
        """Whether the counts differ more than allowed."""
        return exceeds(self.max_difference, abs(source_rows - rows), source_rows)


class FreshnessCheck(CheckConfig):
    """The newest row, or without a column the last load, is not older than `max_age`."""

    type: Literal["freshness"] = Field(description="How old the newest row may be.")
    max_age: Duration = Field(description="Greatest age of the newest row: 26h, 2d.")
    column: Identifier | None = Field(default=None, description="A timestamp; default: the stream's cursor, else the time of the last load.")


class NotNullCheck(CheckConfig):
    """The columns hold no NULL."""

    type: Literal["not_null"] = Field(description="Columns that hold no NULL.")
    columns: tuple[Identifier, ...] = Field(min_length=1, max_length=100, description="The columns, in the source's spelling.")


class UniqueCheck(CheckConfig):
    """No two rows share the columns' values."""

    type: Literal["unique"] = Field(description="Columns whose values occur once.")
    columns: tuple[Identifier, ...] = Field(min_length=1, max_length=100, description="The columns that are unique together, in the source's spelling.")


class AcceptedValuesCheck(CheckConfig):
    """The column holds only these values, or NULL."""

    type: Literal["accepted_values"] = Field(description="Values that a column may hold.")
    column: Identifier = Field(description="The column, in the source's spelling.")
    values: tuple[Text | int | bool, ...] = Field(min_length=1, max_length=1000, description="The values; NULL is always accepted.")


SchemaChangeWord = Literal["column_added", "column_missing", "type_changed"]


class SchemaChangeCheck(CheckConfig):
    """The last load found no column gone from the source, and no value that does not fit its column's type."""

    type: Literal["schema_change"] = Field(description="What the last load found changed in the source's shape.")
    changes: tuple[SchemaChangeWord, ...] = Field(
        default=("column_missing", "type_changed"),
        min_length=1,
        max_length=3,
        description="The changes that fail the check; column_missing: where the source declares its columns (database, Parquet, CSV).",
    )


AnyCheck = Annotated[
    RowCountCheck | SourceRowCountCheck | FreshnessCheck | NotNullCheck | UniqueCheck | AcceptedValuesCheck | SchemaChangeCheck, Field(discriminator="type")
]


def get_check_name(check: AnyCheck, siblings: Sequence[AnyCheck]) -> str:
    """Build the asset check's name: its type and columns, and a number if an earlier check has that name."""
    taken: set[str] = set()
    for other in siblings:
        base = _base_name(other)
        name = next(name for name in (base, *(f"{base}_{number}" for number in range(2, len(taken) + 3))) if name not in taken)
        if other is check:
            return name
        taken.add(name)
    raise ValueError(f"{check.type} is not one of the checks")


def _base_name(check: AnyCheck) -> str:
    match check:
        case NotNullCheck() | UniqueCheck():
            columns: Sequence[str] = check.columns
        case FreshnessCheck() | AcceptedValuesCheck():
            columns = [check.column] if check.column else []
        case _:
            columns = []
    # Dagster takes letters, digits and underscores only.
    return "_".join([check.type, *("".join(c if c.isascii() and c.isalnum() else "_" for c in column) for column in columns)])
