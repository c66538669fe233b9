"""The beginning of a file with a text file's name -> the format that it really has. A text reader would find one row in it, or none."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Foreign:
    """A format that is not plain text.

    Args:
        what: the format's name, with its article.
        remedy: what the user can do, e.g. name a source type that reads the format.
    """

    what: str
    remedy: str


_FOREIGN = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", "unpack it; workbooks are for type: csv_import"),
    (b"PK\x05\x06", "an empty ZIP archive", "unpack it"),
    (b"\xd0\xcf\x11\xe0", "an old or an encrypted Office file", "save it as CSV in UTF-8"),
    (b"PAR1", "a Parquet file", "declare format: parquet"),
    (b"PARE", "an encrypted Parquet file", "write it without encryption, with format: parquet"),
    (b"%PDF", "a PDF", "save it as CSV in UTF-8"),
    (b"BZh", "a bzip2 file", "pack it with gzip or zstd, or not at all"),
    (b"\xfd7zXZ", "an xz file", "pack it with gzip or zstd, or not at all"),
    (b"7z\xbc\xaf", "a 7-Zip archive", "unpack it"),
    (b"Rar!", "a RAR archive", "unpack it"),
    (b"\x1f\x8b", "a gzip file", "declare compression: gzip, or leave the key out"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", "declare compression: zstd, or leave the key out"),
    (b"Obj\x01", "an Avro file", "write CSV, JSON Lines or Parquet"),
    (b"ORC", "an ORC file", "write CSV, JSON Lines or Parquet"),
    (b"ARROW1", "an Arrow file", "write CSV, JSON Lines or Parquet"),
    (b"SQLite format 3\0", "a SQLite database", "read it with type: sql_database"),
    (b"\x89PNG", "a picture", "correct the stream's glob"),
    (b"\xff\xd8\xff", "a picture", "correct the stream's glob"),
)
_MARKUP = re.compile(r"\s*<(!doctype|html|head|body|\?xml|rss|svg|error|!--)", re.IGNORECASE)
_JSON_ROW = re.compile(r'\s*(?:\[\s*)?\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|\})|\s*\[\s*\]\s*\Z')


def find_foreign(head: bytes) -> Foreign | None:
    """The format whose magic bytes a content begins with."""
    for mark, what, remedy in _FOREIGN:
        if head.startswith(mark) and (len(mark) > 3 or not head[:64].isascii()):
            return Foreign(what, remedy)
    return None


def find_markup(text: str) -> Foreign | None:
    """An HTML or XML page instead of data."""
    if _MARKUP.match(text):
        return Foreign("an HTML or XML page", "see whether the program that wrote it got an error or a login page instead of data")
    return None


def is_json(text: str) -> bool:
    """Whether a text begins with an object, or an array of objects."""
    return _JSON_ROW.match(text) is not None
