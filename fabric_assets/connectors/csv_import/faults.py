"""The bad cells of a batch's rows -> one rejection per row that names them all; and an exception while reading a file -> the file's message."""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.connectors.context import SourceContext
from fabric_assets.connectors.csv_import.cells import BadRow, Cells
from fabric_assets.errors import InternalError
from fabric_assets.masking import mask_values
from fabric_assets.own_faults import keep_traceback, report_own_fault
from fabric_assets.rows.batches import Reject

# One character more than the warehouse keeps of a row, so that it sees that the row was longer.
LONGEST_RAW = 8_001
_SHOWN = 10


@dataclass(frozen=True)
class Fault:
    """What is wrong with one cell."""

    index: int
    reason: str
    message: str


class Faults:
    """The bad cells of a batch, by row."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Fault]] = {}

    def __contains__(self, row: int) -> bool:
        return row in self._rows

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._rows))

    def __len__(self) -> int:
        return len(self._rows)

    def add_row(self, row: int, index: int, reason: str, message: str) -> None:
        self._rows.setdefault(row, []).append(Fault(index, reason, message))

    def add(self, mask: pa.Array, index: int, reason: str, build_message: Callable[[int], str]) -> None:
        """Note every row where the mask is true."""
        if pc.any(mask).as_py():
            for row in pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist():
                self.add_row(row, index, reason, build_message(row))

    def build_mask(self, count: int) -> pa.Array:
        """True for the rows without a bad cell."""
        return pa.array([row not in self._rows for row in range(count)], pa.bool_())

    def build_rejects(self, cells: Cells, header: Sequence[str], origin: str) -> list[Reject]:
        rejects = []
        for row in self:
            texts = [column[row].as_py() for column in cells.columns]
            faults = sorted(self._rows[row], key=lambda fault: fault.index)
            rejects.append(_build_reject(cells.lines[row].as_py(), faults, texts, header, origin))
        return rejects


def build_reject(bad: BadRow, header: Sequence[str], origin: str) -> Reject:
    """Build the rejection of a row that could not be read."""
    if bad.cells is None:
        return Reject(origin, bad.line, None, bad.reason, bad.message, _cut(bad.text))
    return _build_reject(bad.line, [Fault(bad.column or 0, bad.reason, bad.message)], bad.cells, header, origin)


def _build_reject(line: int, faults: Sequence[Fault], texts: Sequence[str | None], header: Sequence[str], origin: str) -> Reject:
    first = faults[0]
    parts = [f"{_name(header, fault.index)}: {fault.message}" for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        parts.append(f"and {len(faults) - _SHOWN} more")
    return Reject(origin, line, _name(header, first.index), first.reason, "; ".join(parts), _build_raw(texts, header))


def _name(header: Sequence[str], index: int) -> str:
    return header[index] or f"column {index + 1}"


def _build_raw(texts: Sequence[str | None], header: Sequence[str]) -> str:
    cells, size = {}, 0
    for index, text in enumerate(texts):
        if text is None and not header[index]:
            continue
        cells[_name(header, index)] = text
        size += len(header[index]) + len(text or "")
        if size > LONGEST_RAW:
            break
    return _cut(json.dumps(cells, ensure_ascii=False))


def _cut(raw: str) -> str:
    """Cut a long row, without leaving half of a secret. A cut row is recognised by its length."""
    return raw if len(raw) <= LONGEST_RAW else mask_values(raw)[:LONGEST_RAW].ljust(LONGEST_RAW)


def describe_failure(error: Exception, context: SourceContext) -> str:
    """Say why a file could not be read. If the cause is our own fault, keep the traceback."""
    what, data_dir = "it could not be read", context.settings.data_dir
    if isinstance(error, InternalError):
        keep_traceback(error, data_dir=data_dir, tenant=context.tenant)
        return error.message
    if fault := report_own_fault(error, what, data_dir=data_dir, tenant=context.tenant):
        return fault.message
    return f"{what}: {error.strerror or error if isinstance(error, OSError) else error}"
