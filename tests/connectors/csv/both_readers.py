"""One CSV file through both source types that read CSV -> what each makes of it, as plain values that can be compared."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric_assets.config.sources.files import FileLimits, FileStream
from fabric_assets.connectors.files.database import Engine
from fabric_assets.connectors.files.listing import FetchedFile, SourceFile
from fabric_assets.connectors.files.piece import Reading
from fabric_assets.connectors.files.readers import build_reader
from fabric_assets.errors import DataError, QuarantinedFile
from fabric_assets.rows.arrow_types import TEXT
from fabric_assets.rows.value_forms import CURRENT
from tests.connectors.csv_import.imports import drop

Cells = tuple[str | None, ...]
ENGINE = Engine(Path(tempfile.gettempdir()))


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Args:
        rows: cells, empty ones as None; without the rows that are empty all over, which csv_import leaves out.
        rejects: reason and text of each line that is not a row.
        refusal: why the file as a whole was refused.
    """

    rows: tuple[Cells, ...] = ()
    rejects: tuple[tuple[str, str], ...] = ()
    refusal: str = ""


def load_as_files(content: bytes, columns: Sequence[str] = "abc", **stream: Any) -> Outcome:
    """Read by the source type `files`; the columns must be the file's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.data"
        path.write_bytes(content)
        source = SourceFile("a", "1", len(content), 0.0, lambda: path.open("rb"), path)
        config = FileStream.model_validate({"glob": "a", "format": "csv", "header": True, **stream})
        reader = build_reader(FetchedFile(source, path, ""), Reading(config, FileLimits(), "here", CURRENT, lambda name: False, lambda message: None, ENGINE))
        rows, rejects = dict[int, Cells](), dict[int, tuple[str, str]]()
        try:
            names = list(reader.inspect())
            if names and names != list(columns):
                return Outcome(refusal=f"columns: {names}")
            for piece in reader.read(dict.fromkeys(names, TEXT)):
                for reject in piece.rejects:
                    rejects[reject.row_number or 0] = (reject.reason, reject.raw)
                found = zip(*(column.to_pylist() for column in piece.rows.columns), strict=True) if piece.rows is not None else ()
                for number, cells in enumerate(found, start=piece.first):
                    rows[number] = tuple(cell if cell and not cell.isspace() else None for cell in cells)
        except DataError as error:
            return Outcome(refusal=error.message)
    assert sorted([*rows, *rejects]) == list(range(1, len(rows) + len(rejects) + 1))
    return Outcome(tuple(cells for _, cells in sorted(rows.items()) if any(cells)), tuple(reject for _, reject in sorted(rejects.items())))


def load_as_import(content: bytes, columns: Sequence[str] = "abc", **stream: Any) -> Outcome:
    """Read by the source type `csv_import`; each column is a text."""
    try:
        dropped = drop(content, mapping={name: f"c{number}" for number, name in enumerate(columns)}, **stream)
    except QuarantinedFile as error:
        return Outcome(refusal=error.reason)
    return Outcome(tuple(dropped.cells), tuple((reject.reason, reject.raw or "") for reject in dropped.rejects))
