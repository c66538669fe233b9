"""The columns of a stream that keeps the forms of an earlier release -> what loads since the upgrade have recorded of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from fabric_assets.rows.value_forms import WHOLE_STREAM


@dataclass
class OlderColumns:
    """What is known of a FIRST stream's columns; kept with its names.

    Args:
        forms: column of the stream's own table -> its form, by a word of value_forms.OLDER_FORMS.
        read: table -> columns that loads have read, whose fields and forms are known.
    """

    forms: dict[str, str] = field(default_factory=dict)
    read: dict[str, set[str]] = field(default_factory=dict)

    @staticmethod
    def load(kept: Mapping[str, Any]) -> "OlderColumns":
        return OlderColumns(dict(kept.get("older", {})), {table: set(columns) for table, columns in kept.get("read", {}).items()})

    def export(self) -> dict[str, Any]:
        read = {table: sorted(columns) for table, columns in sorted(self.read.items())}
        return {name: each for name, each in (("older", dict(sorted(self.forms.items()))), ("read", read)) if each}

    def note_read(self, tables: Mapping[str, pa.Table]) -> None:
        """Note the columns of rows that were read from the source."""
        for table, rows in tables.items():
            self.read.setdefault(table, set()).update(rows.column_names)

    def note_forms(self, forms: Mapping[str, str], find_column: Callable[[str], str]) -> None:
        """Note the forms of fields, as a connector gives them."""
        self.forms |= {field if field == WHOLE_STREAM else find_column(field): form for field, form in forms.items()}

    def rename(self, stream: str, renamed: Mapping[str, str]) -> None:
        """Follow columns of the stream's own table to their new names."""
        self.forms = {renamed.get(name, name): form for name, form in self.forms.items()}
        self.read = {table: _rename(columns, renamed) if table == stream else columns for table, columns in self.read.items()}


def _rename(columns: Iterable[str], renamed: Mapping[str, str]) -> set[str]:
    return {renamed.get(name, name) for name in columns}
