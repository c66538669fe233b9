"""What a reader says of a file that it cannot read -> an error without the file's own bytes.

Readers quote the line, the value or the header that they stumble over. A line belongs among the rejected rows, which are the tenant's; an error goes on into
logs and events of the platform, and a source that was pointed at a wrong file would show them what is in it.
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
