"""An Arrow table -> the same with what dlt does not take from an Arrow schema by itself."""

from typing import Any

import dlt
import pyarrow as pa


def mark_naive(table: pa.Table) -> Any:
    """Keep timestamps without a time zone what they are; dlt makes every timestamp one in UTC unless a hint forbids it."""
    naive = [field.name for field in table.schema if pa.types.is_timestamp(field.type) and field.type.tz is None]
    if not naive:
        return table
    hints = dlt.mark.make_hints(columns={name: {"name": name, "data_type": "timestamp", "timezone": False} for name in naive})
    return dlt.mark.with_hints(table, hints)
