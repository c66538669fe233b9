"""What one stream of a source is: its key, its cursor, how it is written. Shared by the source types."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic_core import CoreSchema

from fabric_assets.config.base import IDENTIFIER, CheckedModel, FabricModel, Identifier, Path, Text, format_duration, parse_duration, refuse
from fabric_assets.config.sources.rejects import RejectsConfig
from fabric_assets.suggestions import suggest

WriteDisposition = Literal["append", "replace", "merge"]
ContractWord = Literal["evolve", "freeze", "discard"]


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _parse_lag(value: object) -> timedelta | int:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError("must not be negative")
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        raise ValueError("must be a duration (30s, 5m, 26h, 7d), or a whole number where the cursor is a number") from error


_COLUMN = {"type": "string", "minLength": 1, "maxLength": 63, "pattern": IDENTIFIER}
ColumnNames = Annotated[
    tuple[Identifier, ...],
    BeforeValidator(_as_tuple),
    Field(min_length=1, max_length=2000),
    WithJsonSchema({"anyOf": [_COLUMN, {"type": "array", "items": _COLUMN, "minItems": 1, "maxItems": 2000}]}),
]
# A name that dlt's snake_case leaves as it is, and that is not one of the platform's own columns.
_COLUMN_NAME = r"^(?!_dlt_|_fabric_)_?[a-z][a-z0-9]*(_[a-z0-9]+|__[a-z][a-z0-9]*)*$"


def _check_column_name(value: object) -> object:
    if isinstance(value, str) and not (len(value) <= 63 and re.fullmatch(_COLUMN_NAME, value)):
        raise ValueError(
            "must be the name of a column: at most 63 lower-case letters, digits and single underscores, beginning with a letter, not with _dlt_ or _fabric_"
        )
    return value


ColumnName = Annotated[str, BeforeValidator(_check_column_name), WithJsonSchema({"type": "string", "maxLength": 63, "pattern": _COLUMN_NAME})]
Lag = Annotated[
    timedelta | int,
    BeforeValidator(_parse_lag),
    PlainSerializer(lambda value: format_duration(value) if isinstance(value, timedelta) else value),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": r"^\d{1,6}(s|m|h|d)$"}, {"type": "integer", "minimum": 0}]}),
]


class CursorConfig(FabricModel):
    """The column whose highest value says how far the last load came."""

    field: Identifier = Field(description="Column, or dotted path, in the source's own spelling.")
    initial: Text | int | None = Field(default=None, description="Where the first load begins; default: the beginning.")
    lag: Lag | None = Field(
        default=None, description="How far before the last value a load begins again, for rows that arrive late: a duration, or a number for numeric cursors."
    )


def _refuse_dlt_word(value: object) -> object:
    if value in ("discard_row", "discard_value"):
        raise ValueError("nothing is dropped unseen here; write discard, which keeps the rows in rejected_rows")
    return value


class SchemaContract(FabricModel):
    """What a load does when the source's rows have another shape than the table."""

    columns: Annotated[ContractWord, BeforeValidator(_refuse_dlt_word)] = Field(
        default="evolve",
        description="A new column: evolve adds it, freeze fails the load, discard rejects the rows with a value in it. A dropped column warns.",
    )
    data_type: Annotated[ContractWord, BeforeValidator(_refuse_dlt_word)] = Field(
        default="evolve",
        description="A value that its column's type cannot hold: evolve keeps it as text in <column>__v_text, freeze fails the load, discard rejects the row.",
    )


class _OneWordForBoth:
    """Lets `schema_contract: freeze` stand for `{columns: freeze, data_type: freeze}`, in YAML and in the JSON Schema."""

    @staticmethod
    def spread(value: object) -> object:
        words = get_args(ContractWord)
        if not isinstance(value, str):
            return value
        if _refuse_dlt_word(value) not in words:
            raise ValueError(f"is not one of the words allowed{suggest(value, words)}")
        return {"columns": value, "data_type": value}

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, object]:
        return {"anyOf": [{"type": "string", "enum": list(get_args(ContractWord))}, handler(schema)]}


class StreamConfig(CheckedModel):
    """Base of every stream."""

    description: Text | None = Field(default=None, description="Shown on the asset.")
    primary_key: ColumnNames | None = Field(default=None, description="The column or columns that make a row unique, in the source's spelling.")
    write_disposition: WriteDisposition | None = Field(
        default=None, description="Default: merge where a primary key is declared; else replace (databases, APIs) or append (files)."
    )
    schema_contract: Annotated[SchemaContract, BeforeValidator(_OneWordForBoth.spread), _OneWordForBoth()] = Field(
        default=SchemaContract(), description="What may change in the stream's shape; one word for both of its keys, or a mapping."
    )
    rejects: RejectsConfig = Field(default=RejectsConfig(), description="How many rows may be rejected before the load fails.")

    @property
    def disposition(self) -> WriteDisposition:
        """The disposition in force, the default included."""
        return self.write_disposition or ("merge" if self.primary_key else "replace")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield the path of each key that would lose, double or confuse rows, and the reason."""
        if self.write_disposition == "merge" and not self.primary_key:
            yield ("write_disposition",), "merge needs a primary_key to know which rows are the same; declare one, or use replace"
        yield from find_same_columns(self.primary_key or (), "primary_key")


# docs/adr/0055
_NO_DELETES = (
    "files do not show what was deleted: a row that the newest file lacks may be in an older one, and files may be missing."
    " If the files are always a whole export, use write_disposition: replace; else let the export mark deleted rows in a column"
)


class FolderStream(StreamConfig):
    """Base of streams that are read from the files of a folder."""

    @model_validator(mode="before")
    @classmethod
    def _follows_no_deletes(cls, value: object) -> object:
        if isinstance(value, dict) and "deletes" in value:
            refuse([(("deletes",), _NO_DELETES)])
        return value

    @property
    def disposition(self) -> WriteDisposition:
        """The disposition in force, the default included."""
        return self.write_disposition or ("merge" if self.primary_key else "append")

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield a pattern that leaves the source's folder."""
        yield from super().find_contradictions()
        glob = str(getattr(self, "glob", ""))
        if glob.startswith("/") or "://" in glob or ".." in PurePosixPath(glob).parts:
            yield ("glob",), "must stay below the source's path: no leading / and no .."


class RenamingStream(StreamConfig):
    """Base of streams whose columns are named by the source."""

    rename: dict[Identifier, ColumnName] = Field(
        default={},
        max_length=2000,
        description="Field in the source's spelling -> the name of its column; a column that is loaded already is renamed with the next load.",
    )

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield names that two fields would share."""
        yield from super().find_contradictions()
        cursor = getattr(self, "cursor", None)
        declared = [*(self.primary_key or ()), *(getattr(self, "columns", None) or ()), *([cursor.field] if cursor else [])]
        owners = {name: name for name in declared if name not in self.rename}
        for source, column in self.rename.items():
            if (owner := owners.setdefault(column, source)) != source:
                yield ("rename", source), f"the column {column} belongs to {owner!r} already; choose another name, or rename {owner!r} too"


def find_cursor_contradictions(stream: StreamConfig, cursor: CursorConfig | None, *, knows_keys: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield the combinations of cursor and write disposition that would lose or double rows.

    Args:
        knows_keys: whether the source recognises, by their primary key, rows of an append that are already loaded.
    """
    if cursor is None:
        if stream.disposition == "append":
            yield (
                ("write_disposition",),
                "append without a cursor would load every row again in each run; declare a cursor, or use merge (with primary_key) or replace",
            )
    elif stream.disposition == "append" and cursor.lag is not None and not (knows_keys and stream.primary_key):
        remedy = "declare a primary_key, or drop the lag" if knows_keys else "use merge with a primary_key, or drop the lag"
        yield ("cursor", "lag"), f"append with a lag would load the lagging rows twice; {remedy}"
    elif stream.disposition == "replace":
        why = "replace reads the whole stream" if stream.write_disposition else "without a primary_key each load replaces the whole stream"
        yield ("cursor",), f"{why}, so a cursor would drop the older rows; declare a primary_key (merge), use append, or drop it"


def find_same_columns(columns: Sequence[str], key: str) -> Iterator[tuple[Path, str]]:
    """Yield columns that are named twice; two Unicode spellings of one name are one column."""
    seen: set[str] = set()
    for index, column in enumerate(columns):
        composed = unicodedata.normalize("NFC", column)
        if composed in seen:
            yield (key, index), f"names {column} twice"
        seen.add(composed)
