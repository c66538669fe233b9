"""A reader's message about a file that it cannot read -> an error that does not quote the file.

Readers quote the line, value or header that caused the error. Such content may appear in the rejected rows, which are the tenant's, but not in the platform's
logs and events. A source that points at a wrong file would expose its content there.
"""

import re

from fabric_assets.connectors.files.listing import FetchedFile
from fabric_assets.errors import DataError

_FAULTS = re.compile(
    r"Expected Number of Columns: \d+ Found: \d+|unterminated quote\b|invalid unicode|not utf-8 encoded|maximum line size of \d+ bytes exceeded"
    r"|maximum_object_size\W{1,3}of \d+ bytes exceeded|malformed JSON|duplicate key|Expected OBJECT, but got [A-Z]+"
    r"|Parquet magic bytes not found in footer|smaller than the (?:minimum|size reported by)|unexpected end of (?:stream|file)",
    re.IGNORECASE,
)
_OUT_OF_MEMORY = ("OutOfMemoryException", "ArrowMemoryError", "MemoryError")
_LINE = re.compile(r"\bline:?\s+(\d+)", re.IGNORECASE)


def build_error(file: FetchedFile, where: str, error: Exception) -> DataError:
    said = str(error)
    if type(error).__name__ in _OUT_OF_MEMORY:
        remedy = "write rows or columns that are shorter, or split the file; no row of it has been loaded"
        return DataError(f"{where}: the file {file.source.shown} needs more memory than a reader of files may take", remedy=remedy)
    line = _LINE.search(said)
    at = f", line {line[1]}" if line else ""
    faults = "; ".join(dict.fromkeys(match[0].lower() for match in _FAULTS.finditer(said)))
    reason = faults or f"it is not of the stream's format ({type(error).__name__})"
    return DataError(f"{where}: the file {file.source.shown}{at} cannot be read: {reason}", remedy="correct the file; no row of it has been loaded")
