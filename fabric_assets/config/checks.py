"""The `checks:` block: what must hold of a raw stream after each load."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fabric_assets.config.base import Duration, FabricModel, Text


class CheckConfig(FabricModel):
    """Base of every check."""

    severity: Literal["error", "warn"] = Field("error", description="error fails `fabric run`; warn is only shown.")
    blocking: bool = Field(False, description="Models that build on the stream wait until the check passes.")


class RowCountCheck(CheckConfig):
    """The table holds at least `min` and at most `max` rows."""

    type: Literal["row_count"]
    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> "RowCountCheck":
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min is greater than max")
        return self


class FreshnessCheck(CheckConfig):
    """The newest row, or without a column the last load, is not older than `max_age`."""

    type: Literal["freshness"]
    max_age: Duration
    column: Text | None = Field(None, description="A timestamp; default: the stream's cursor, else the time of the last load.")


class NotNullCheck(CheckConfig):
    """The columns hold no NULL."""

    type: Literal["not_null"]
    columns: tuple[Text, ...] = Field(min_length=1)


class UniqueCheck(CheckConfig):
    """No two rows share the columns' values."""

    type: Literal["unique"]
    columns: tuple[Text, ...] = Field(min_length=1)


class AcceptedValuesCheck(CheckConfig):
    """The column holds only these values, or NULL."""

    type: Literal["accepted_values"]
    column: Text
    values: tuple[str | int | bool, ...] = Field(min_length=1)


AnyCheck = Annotated[RowCountCheck | FreshnessCheck | NotNullCheck | UniqueCheck | AcceptedValuesCheck, Field(discriminator="type")]


def get_check_name(check: AnyCheck, siblings: tuple[AnyCheck, ...]) -> str:
    """The asset check's name: its type and columns, numbered only where a stream declares the same one again."""
    same = [other for other in siblings if _base_name(other) == _base_name(check)]
    position = next(index for index, other in enumerate(same) if other is check)
    return _base_name(check) + (f"_{position + 1}" if position else "")


def _base_name(check: AnyCheck) -> str:
    columns = getattr(check, "columns", None) or ([check.column] if getattr(check, "column", None) else [])
    return "_".join([check.type, *("".join(c if c.isalnum() else "_" for c in column) for column in columns)])
