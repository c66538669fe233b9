"""The fields of a stream's rows -> the columns and tables that they have in the warehouse; no two fields share one.

The rule (rows/column_names.py) proposes a name. A field whose name is taken gets the same name with a number. A field
keeps its name, because names are saved with the stream's state. A field that is spelt as its column is not saved: a column without
a saved name belongs to the field of its own name.

A field is known by its path: the keys that lead to it within one row of its table, in their composed Unicode form.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from fabric_assets.errors import DataError
from fabric_assets.rows.column_names import SEPARATOR, compose, join_names, normalize_column, number_name, spell_column
from fabric_assets.rows.older_columns import OlderColumns
from fabric_assets.rows.reports import SchemaChange
from fabric_assets.rows.value_forms import CURRENT
from fabric_assets.rows.variant_columns import find_variants, is_named_as_variant, is_variant

Path = tuple[str, ...]


@dataclass
class _Names:
    """The names of a table's columns, or of its nested tables, in both directions: path -> name, name -> path."""

    by_path: dict[Path, str] = field(default_factory=dict)
    by_name: dict[str, Path] = field(default_factory=dict)

    def add(self, path: Path, name: str) -> None:
        self.by_path[path] = name
        self.by_name[name] = path


class StreamNames:
    """The names of one stream's columns and nested tables. `get_*` assign a name for good; `find_column` only looks it up or predicts it.

    Args:
        layout: table -> columns, as committed; empty for a stream that is loaded anew.
        kept: the result of `export` at the end of an earlier load.
        value_forms: in a FIRST stream dlt's rule alone named the columns, and a column belongs to the first field of its name.
        rename: the names that the stream's YAML gives to fields of the row itself.
        reserved: names that no column of the destination can have; a field with such a name gets a number too.
        where: tenant, source and stream, for messages.
    """

    def __init__(
        self,
        stream: str,
        *,
        layout: Mapping[str, Mapping[str, Any]],
        kept: str | None = None,
        value_forms: int = CURRENT,
        rename: Mapping[str, str] | None = None,
        reserved: Set[str] = frozenset(),
        where: str = "",
    ) -> None:
        self._stream, self._where, self.is_first, self._reserved = stream, where, value_forms < CURRENT, reserved
        self.layout = {table: dict(columns) for table, columns in layout.items()}
        self._columns: dict[str, _Names] = {}
        self._tables: dict[str, _Names] = {}
        self._table_names: set[str] = set()
        self._rivals: dict[tuple[str, str], str] = {}
        self._news: dict[tuple[str, str], str] = {}
        self._known, self.older = set[tuple[str, Path]](), OlderColumns()
        self._load(kept)
        self._rename = {compose(source): column for source, column in (rename or {}).items()}
        self.renamed: dict[str, str] = {}
        self.problem: DataError | None = None
        try:
            self._rename_columns()
        except DataError as error:
            # Raised by the first batch: a stream that cannot be loaded must not end the load of the others.
            self.problem = error

    # --- columns

    def get_column(self, table: str, path: Path) -> str:
        """Return a field's column, which belongs to the field from now on."""
        names = self._columns.setdefault(table, _Names())
        known = names.by_path.get(path)
        if known is not None:
            return known
        name, rival = self._choose_column(table, path)
        names.add(path, name)
        if rival is not None:
            self._rivals[table, name] = rival
        if name != join_names(map(normalize_column, path)) and name not in self.layout.get(table, {}):
            self._news[table, name] = ".".join(path)
        return name

    def keep_column(self, table: str, path: Path, name: str) -> None:
        self._columns.setdefault(table, _Names()).add(path, name)

    def get_columns(self, table: str, labels: Iterable[str]) -> None:
        """Name the fields of a table's rows together, so that their order does not matter."""
        names = self._columns.setdefault(table, _Names())
        groups: dict[str, list[str]] = {}
        for label in labels:
            path = compose(label)
            if (path,) not in names.by_path:
                groups.setdefault(spell_column(path), []).append(path)
        for spelt, group in groups.items():
            if len(group) > 1:
                for path in sorted(set(group), key=lambda path: (path != spelt, path)):
                    self.get_column(table, (path,))

    def find_column(self, label: str, table: str = "") -> str:
        """Return the column that a field of the row itself has, or would get if it came next."""
        table, path = table or self._stream, (compose(label),)
        known = self._columns[table].by_path.get(path) if table in self._columns else None
        return known or self._choose_column(table, path)[0]

    def find_owner(self, table: str, column: str) -> str | None:
        path = self._columns[table].by_name.get(column) if table in self._columns else None
        return ".".join(path) if path is not None else None

    def find_rival(self, table: str, column: str) -> str | None:
        return self._rivals.get((table, column))

    def list_seen(self, label: str) -> Iterator[str]:
        """Yield the column of a field of the row itself, and the beginnings of the names of columns nested in it."""
        path = compose(label)
        yield self.find_column(label)
        yield self._spell_first(path)
        if self.is_first:
            yield normalize_column(path)

    def _choose_column(self, table: str, path: Path) -> tuple[str, str | None]:
        """Choose a name for a new field; also return the field that already has the name that the rule proposes."""
        names, layout = self._columns.get(table) or _Names(), self.layout.get(table, {})
        is_renamed = table == self._stream and path[0] in self._rename
        if self.is_first and not (is_renamed and len(path) == 1):
            former = join_names(map(normalize_column, path))
            if former in layout and former not in names.by_name and not is_variant(former, layout):
                return former, None
        first = self._rename[path[0]] if is_renamed else spell_column(path[0])
        wanted = join_names((first, *map(spell_column, path[1:])))
        name, number = wanted, 1
        while name in self._reserved or not _is_free(name, path, names, layout):
            number += 1
            name = number_name(wanted, number)
        if name == wanted or wanted in self._reserved:
            return name, None
        owner = names.by_name.get(wanted)
        return name, ".".join(owner) if owner is not None else wanted

    def _spell_first(self, key: str) -> str:
        return self._rename.get(key) or spell_column(key)

    # --- nested tables

    def get_table(self, parent: str, path: Path, wanted: str, former: str) -> str:
        """Return a list's table, which belongs to the list from now on.

        Args:
            wanted: its name by the present rule.
            former: its name by dlt's rule alone.
        """
        names = self._tables.setdefault(parent, _Names())
        known = names.by_path.get(path)
        if known is not None:
            return known
        name, number = wanted, 1
        if self.is_first and former in self.layout and former not in self._table_names:
            name = former
        else:
            while not self._is_free_table(name, parent, path):
                number += 1
                name = number_name(wanted, number)
        names.add(path, name)
        self._table_names.add(name)
        if name != former and name not in self.layout:
            self._news[name, ""] = ".".join(path)
        return name

    def _is_free_table(self, name: str, parent: str, path: Path) -> bool:
        if name in self._table_names:
            return False
        return name not in self.layout or (not self._is_kept_table(parent, path, name))

    @staticmethod
    def _is_kept_table(parent: str, path: Path, name: str) -> bool:
        key = name.removeprefix(f"{parent}{SEPARATOR}")
        return key == name or SEPARATOR in key or path != (key,)

    # --- what is kept

    def export(self, tables: Mapping[str, Iterable[str]]) -> str:
        """Export the names to save with the stream's state.

        Args:
            tables: the columns after the load; a field whose rows were all rejected has no column.
        """
        columns = {
            table: sorted(
                [list(path), name]
                for path, name in names.by_path.items()
                if self._is_kept_column(path, name) and (name in tables.get(table, ()) or (table, path) in self._known)
            )
            for table, names in sorted(self._columns.items())
        }
        nested = sorted(
            [parent, list(path), name]
            for parent, names in self._tables.items()
            for path, name in names.by_path.items()
            if (self.is_first or self._is_kept_table(parent, path, name)) and (name in tables or (parent, path) in self._known)
        )
        kept: dict[str, Any] = {"columns": {table: each for table, each in columns.items() if each}}
        if nested:
            kept["tables"] = nested
        if self.is_first:
            kept |= self.older.export()
        return json.dumps(kept, ensure_ascii=False, separators=(",", ":"))

    def list_columns(self) -> list[tuple[str, Path, str]]:
        """List each known table, field and column; `list_tables` lists parent, list and nested table."""
        return [(table, path, name) for table, names in self._columns.items() for path, name in names.by_path.items()]

    def list_tables(self) -> list[tuple[str, Path, str]]:
        return [(parent, path, name) for parent, names in self._tables.items() for path, name in names.by_path.items()]

    def get_changes(self, tables: Mapping[str, Iterable[str]]) -> list[SchemaChange]:
        """List the new names that differ from dlt's rule, and the columns that this load has renamed."""
        return [
            *(SchemaChange(self._stream, new, "column_renamed", before=old, after=new) for old, new in self.renamed.items()),
            *(
                SchemaChange(table if column else self._stream, column or table, "column_named", before=source, after=column or table)
                for (table, column), source in self._news.items()
                if table in tables and (not column or column in tables[table])
            ),
        ]

    def _is_kept_column(self, path: Path, name: str) -> bool:
        return self.is_first or path != (name,) or is_named_as_variant(name)

    def _load(self, kept: str | None) -> None:
        if not kept:
            return
        found = json.loads(kept)
        self.older = OlderColumns.load(found)
        for table, entries in found["columns"].items():
            names = self._columns.setdefault(table, _Names())
            for path, name in entries:
                names.add(tuple(path), name)
                self._known.add((table, tuple(path)))
        for parent, path, name in found.get("tables", ()):
            self._known.add((parent, tuple(path)))
            self._tables.setdefault(parent, _Names()).add(tuple(path), name)
            self._table_names.add(name)

    # --- rename

    def _rename_columns(self) -> None:
        """Give renamed fields their names. Existing columns are renamed in the layout and listed in `renamed`."""
        layout = self.layout.get(self._stream, {})
        names = self._columns.setdefault(self._stream, _Names())
        wanted: dict[Path, str] = {}
        former: dict[Path, str] = {}
        for source, target in self._rename.items():
            known = names.by_path.get((source,))
            if known is None:
                rest, self._rename = self._rename, {key: each for key, each in self._rename.items() if key != source}
                known, _ = self._choose_column(self._stream, (source,))
                self._rename = rest
            former[source,], wanted[source,] = known, target
            for path, name in names.by_path.items():
                if len(path) > 1 and path[0] == source:
                    former[path], wanted[path] = name, join_names((target, *map(spell_column, path[1:])))
        leaving = set(former.values())
        for path, name in wanted.items():
            owner = names.by_name.get(name)
            if name in self._reserved or (owner is not None and owner not in wanted) or (name in layout and name not in leaving and former[path] != name):
                raise DataError(
                    f"{self._where}: rename gives {'.'.join(path)!r} the name {name!r}, and the table has a column of that name"
                    f" already{f', of the field {chr(46).join(owner)!r}' if owner is not None else ''}",
                    remedy="choose another name under rename, or rename the other field too",
                )
        for path in former:
            if path in names.by_path:
                del names.by_name[names.by_path.pop(path)]
        for path, name in wanted.items():
            names.add(path, name)
            if former[path] in layout and former[path] != name:
                self.renamed |= {former[path]: name, **find_variants(former[path], name, layout)}
        if self.renamed:
            self.layout[self._stream] = {self.renamed.get(name, name): kind for name, kind in layout.items()}
            self.older.rename(self._stream, self.renamed)


def _is_free(name: str, path: Path, names: _Names, layout: Mapping[str, Any]) -> bool:
    """Whether a field may have a name. A column without a saved name belongs to the field of its own name, unless it is a variant."""
    if name in names.by_name:
        return False
    return name not in layout or (path == (name,) and not is_variant(name, layout))


NO_NAMES = '{"columns":{}}'
