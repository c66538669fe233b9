"""`rejects:` of a stream: how many rows may be set aside before its load fails."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from fabric_assets.config.base import FabricModel

_SHARE = r"^(100|\d{1,2}(\.\d{1,4})?)%$"


def _parse_limit(value: object, rows: str) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("must not be negative")
        return value
    if isinstance(value, str) and re.fullmatch(_SHARE, value):
        return value
    raise ValueError(f"must be a share of the {rows} (5%, 0.1%, at most 100%), or a whole number of rows")


_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string", "pattern": _SHARE, "examples": ["5%"]}, {"type": "integer", "minimum": 0}]})
LimitOfRead = Annotated[int | str, BeforeValidator(lambda value: _parse_limit(value, "rows read")), _SCHEMA]
LimitOfTable = Annotated[int | str, BeforeValidator(lambda value: _parse_limit(value, "table's rows")), _SCHEMA]
LimitOfSource = Annotated[int | str, BeforeValidator(lambda value: _parse_limit(value, "source's rows")), _SCHEMA]


def exceeds(limit: int | str, part: int, whole: int) -> bool:
    """Whether a part of some rows is more than a limit allows."""
    return part * 100 > whole * Decimal(limit.removesuffix("%")) if isinstance(limit, str) else part > limit


class RejectsConfig(FabricModel):
    """How many rows of a load may be rejected."""

    max: LimitOfRead | None = Field(
        default=None, description="A share of the rows read, as in 5%, or a number of rows; with more rejected the load fails. Default: no limit."
    )

    def is_exceeded(self, read: int, rejected: int) -> bool:
        """Whether more rows were rejected than the limit allows.

        Args:
            read: all rows of the load, the rejected ones included.
        """
        return self.max is not None and exceeds(self.max, rejected, read)
