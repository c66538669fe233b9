"""`type: files` in each format, and `type: csv_import` with CSV files and workbooks: rows in blocks, a file each."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from tests.connectors.csv_import.workbooks import row as build_cells
from tests.connectors.csv_import.workbooks import write_workbook
from tests.contract.source import COLUMNS, Row, Source

# A row that changes, changes its file: each second load reads the rows of a block anew.
BLOCK = 10
# No format is written so, whatever the file's name says.
GARBAGE = b"PK\x03\x04 cut off"


class Jsonl(Source):
    """JSON Lines, merged by a key."""

    type = "files"
    form: ClassVar[str] = "jsonl"
    boundary = 2 * BLOCK
    folder: ClassVar[str] = "exports"
    bad: ClassVar[Sequence[Any]] = (None, "acme", "bad", 1)

    def prepare(self) -> None:
        for stream in self.rows:
            (self.settings.data_dir / self.folder / stream).mkdir(parents=True)

    def build(self) -> dict[str, Any]:
        return {"type": self.type, "path": self.folder, "streams": {name: self.build_stream(name) for name in self.rows}}

    def build_stream(self, name: str) -> dict[str, Any]:
        return {"glob": f"{name}/*.{self.form}", "format": self.form, "primary_key": "id"}

    def write(self, stream: str, changed: list[Row]) -> None:
        for block in sorted({row[0] // BLOCK for row in changed}):
            self.write_block(stream, block)

    def delete(self, stream: str, row: Row) -> None:
        self.write_block(stream, row[0] // BLOCK)

    def write_block(self, stream: str, block: int) -> None:
        rows = [row for number, row in self.rows[stream].items() if number // BLOCK == block]
        self.write_rows(self.get_file(stream, f"{block:03}"), rows)

    def get_file(self, stream: str, stem: str) -> Path:
        return self.settings.data_dir / self.folder / stream / f"{stem}.{self.form}"

    def write_rows(self, file: Path, rows: Sequence[Sequence[Any]]) -> None:
        file.write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows))

    def add_bad_row(self) -> None:
        self.write_rows(self.get_file("orders", f"bad{self.next_seq()}"), [self.bad])

    def break_stream(self) -> None:
        self.get_file("stores", "broken").write_bytes(GARBAGE)

    def fix_stream(self) -> None:
        self.get_file("stores", "broken").unlink()


class Json(Jsonl):
    """An array of objects per file."""

    form = "json"

    def write_rows(self, file: Path, rows: Sequence[Sequence[Any]]) -> None:
        file.write_text(json.dumps([dict(zip(COLUMNS, row, strict=True)) for row in rows]))


class Parquet(Jsonl):
    """Parquet files."""

    form = "parquet"

    def write_rows(self, file: Path, rows: Sequence[Sequence[Any]]) -> None:
        schema = pa.schema([("id", pa.int64()), ("owner", pa.string()), ("note", pa.string()), ("seq", pa.int64())])
        pq.write_table(pa.Table.from_pylist([dict(zip(COLUMNS, row, strict=True)) for row in rows], schema), file)


class Csv(Jsonl):
    """CSV files without a key: appended; the rows of a changed file replace its earlier ones."""

    form = "csv"
    disposition = "append"
    reason = ("ragged_row", None)
    bad = (9, "acme")

    def build_stream(self, name: str) -> dict[str, Any]:
        return {"glob": f"{name}/*.csv", "format": "csv"}

    def write_rows(self, file: Path, rows: Sequence[Sequence[Any]]) -> None:
        file.write_text("".join(",".join(map(str, line)) + "\n" for line in (COLUMNS, *rows)))


class DroppedCsv(Csv):
    """CSV files that people drop."""

    type = "csv_import"
    folder = "inbox/acme"
    reason = ("required", "id")
    bad = ("", "acme", "bad", 1)
    quarantines = True

    def build(self) -> dict[str, Any]:
        return {**super().build(), "ready": "done_file"}

    def build_stream(self, name: str) -> dict[str, Any]:
        columns = {"id": {"type": "bigint", "required": True}, "owner": {}, "note": {}, "seq": {"type": "bigint"}}
        return {"glob": f"{name}/*.{self.form}", "columns": columns}

    def write_rows(self, file: Path, rows: Sequence[Sequence[Any]]) -> None:
        super().write_rows(file, rows)
        self.say_done(file)

    def say_done(self, file: Path) -> None:
        file.with_name(f"{file.name}.done").touch()

    def break_stream(self) -> None:
        super().break_stream()
        self.say_done(self.get_file("stores", "broken"))

    def fix_stream(self) -> None:
        """The file was moved to quarantine."""


class DroppedWorkbook(DroppedCsv):
    """Workbooks that people drop."""

    form = "xlsx"

    def write_rows(self, file: Path, rows: Sequence[Sequence[Any]]) -> None:
        lines = [dict(zip("ABCD", line, strict=True)) for line in (COLUMNS, *rows)]
        cells = [{column: f"n:{value}" if isinstance(value, int) else value for column, value in line.items() if value != ""} for line in lines]
        write_workbook(file, {"Sheet1": "".join(build_cells(number, **line) for number, line in enumerate(cells, 1))})
        self.say_done(file)
