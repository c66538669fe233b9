"""A file of JSON objects, one per line or in an array -> typed columns; nested values stay JSON text."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from fabric_assets.connectors.files.salvage import Fragment, is_misread, salvage, split_json
from fabric_assets.connectors.files.text_reader import TextReader
from fabric_assets.connectors.files.types import TextColumn
from fabric_assets.errors import DataError
from fabric_assets.quoting import quote, quote_text

_NUMBERED = re.compile(r"(.+)_\d+|[cC]\d+")
_KEEPS_SPELLING = 2
# DuckDB would read objects with many different keys as maps, and a file of maps has no columns.
_NO_MAPS = "map_inference_threshold=-1, field_appearance_threshold=0"


class JsonReader(TextReader):
    def _look(self) -> None:
        if self._salvage is None and is_misread(self.path):
            self._salvage = salvage(self._split(self.path), self.file)
        super()._look()

    def _find_columns(self, connection: Any) -> list[TextColumn]:
        if not self.path.stat().st_size:
            return []
        path = quote_text(str(self.path))
        try:
            found = connection.execute(f"describe select * from read_json({path}, {self._options}, maximum_depth=1, sample_size=-1, {_NO_MAPS})").fetchall()
        except duckdb.BinderException:
            if self._salvage is None:
                raise
            return self._refuse_bare_objects()
        names = [row[0] for row in found]
        self._refuse_other_names(connection, names)
        keys, has_moments = self.reading.stream.primary_key or (), self.reading.value_forms < _KEEPS_SPELLING
        return [
            TextColumn(name, f"({quote(name)} ->> '$')", f"json_type({quote(name)})", keeps_spelling=name in keys, has_number=name in keys and has_moments)
            for name in names
        ]

    def _refuse_bare_objects(self) -> list[TextColumn]:
        """Refuse a file whose objects are all empty, but not a single `{}`, which some programs write for an empty list."""
        if self._content.is_array and self.path.read_text(encoding="utf-8").split() == ["{}"]:
            return []
        raise DataError(f"{self.name} holds no fields: all of its objects are empty", remedy="write rows with fields, or no rows at all")

    def _relate(self, path: Path, columns: Sequence[TextColumn]) -> str:
        named = ", ".join(f"{quote_text(column.name)}: 'JSON'" for column in columns)
        return f"read_json({quote_text(str(path))}, {self._options}, columns={{{named}}})"

    def _split(self, path: Path) -> Iterator[Fragment]:
        return split_json(path, name=self.name, encoding=self._content.encoding, unit="element" if self._content.is_array else "line")

    @property
    def _options(self) -> str:
        return f"format='newline_delimited', records=true, maximum_object_size={self._longest_line}"

    def _refuse_other_names(self, connection: Any, names: list[str]) -> None:
        """Refuse names that DuckDB changes: `ID` beside `id` becomes `ID_1`, and an empty name `C0`. No line has a value under these names."""
        known = {name.lower() for name in names}
        if not any(match and (not match[1] or match[1].lower() in known) for match in map(_NUMBERED.fullmatch, names)):
            return
        path = quote_text(str(self.path))
        keys = connection.execute(
            f"select distinct unnest(json_keys(json)) from read_ndjson_objects({path}, maximum_object_size={self._longest_line})"
        ).fetchall()
        real = sorted(key for (key,) in keys)
        if "" in real:
            raise DataError(f"{self.name} has a field without a name", remedy="give the field a name, or leave it out")
        twins = [key for key in real if [other.lower() for other in real].count(key.lower()) > 1]
        if twins:
            raise DataError(
                f"{self.name} has keys that differ only in case: {', '.join(twins)}",
                remedy="rename one of them; a warehouse takes both for the same column",
            )
