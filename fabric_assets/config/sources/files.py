"""The YAML of a `files` source: which files of a folder or bucket a stream takes, and how they are written."""

import codecs
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from fabric_assets.config.base import IDENTIFIER, FabricModel, Name, Path, Size, Text, Whole
from fabric_assets.config.sources.models import FolderSource
from fabric_assets.config.sources.streams import FolderStream, RenamingStream, WriteDisposition
from fabric_assets.suggestions import suggest

FileFormat = Literal["csv", "jsonl", "json", "parquet"]
Compression = Literal["auto", "gzip", "zstd", "none"]

# The common encodings, for suggestions; any text encoding of Python is accepted.
_ENCODINGS = ("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "latin-1", "iso-8859-15", "cp1250", "cp1251", "cp932", "gb18030", "big5", "euc-kr")
_NO_ENCODINGS = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "utf-7", "mbcs", "oem")
_NO_DELIMITER = "\"'\r\n \0\\"


def _check_encoding(value: str) -> str:
    try:
        name = codecs.lookup(value).name
        "a,b".encode(name)  # fails for an encoding that is not for text, such as base64
    except (LookupError, UnicodeError):
        name = ""
    if not name or name in _NO_ENCODINGS:
        raise ValueError(f"unknown encoding{suggest(value, _ENCODINGS)}")
    return name


TextEncoding = Annotated[Text, AfterValidator(_check_encoding)]


def _check_delimiter(value: object) -> object:
    if not isinstance(value, str) or len(value) != 1 or value in _NO_DELIMITER or value.isalnum():
        raise ValueError('must be one character between two fields, such as ";" or "\\t": no letter, digit, quote, space or line end')
    return value


def _check_header(value: object) -> object:
    if isinstance(value, bool):
        return value
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        raise ValueError("must be true, false, or the list of the columns' names")
    if not names or len(names) > 16_384 or not all(isinstance(name, str) and name.strip() and len(name) <= 200 for name in names):
        raise ValueError("must be true, false, or the list of the columns' names, each a text of 1 to 200 characters")
    if twice := next((name for index, name in enumerate(names) if name.casefold() in {other.casefold() for other in names[:index]}), None):
        raise ValueError(f"names {twice} twice")
    return tuple(name.strip() for name in names)


_COLUMN = {"type": "string", "minLength": 1, "maxLength": 200, "pattern": IDENTIFIER}
Header = Annotated[
    bool | tuple[str, ...],
    BeforeValidator(_check_header),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, _COLUMN, {"type": "array", "items": _COLUMN, "minItems": 1, "maxItems": 16_384}]}),
]
Mark = Annotated[str, BeforeValidator(_check_delimiter), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 1})]


class FileLimits(FabricModel):
    """How large a file may be; a larger one fails the stream's load, whatever it holds."""

    bytes: Size = Field(default=20 * 1000**3, description="Size of its content, unpacked: 500KB, 10MB, 2GB.")
    columns: Whole = Field(default=2000, ge=1, le=16_384, description="Its columns.")
    memory: Size = Field(
        default=400 * 1000**2, description="What the pages of a Parquet file take that are unpacked at a time, with the copies that are made of large ones."
    )


class FileStream(FolderStream, RenamingStream):
    """The files of one shape; each row also carries its file, the file's SHA-256 and its row number."""

    glob: Text = Field(description="Pattern below the source's path, e.g. tickets/*.jsonl.")
    format: FileFormat = Field(description="How the files are written: `jsonl` is one JSON object a line, `json` an array of objects.")
    compression: Compression = Field(default="auto", description="How the files are packed; `auto` finds gzip and zstd by their first bytes.")
    encoding: TextEncoding | None = Field(
        default=None, description="Of csv, jsonl and json, e.g. cp1252; default: UTF-8, or UTF-16 where the file begins with its mark."
    )
    delimiter: Mark | None = Field(
        default=None, description="Of csv: the character between two fields. Default: comma, semicolon, tab or bar, whichever the header has most."
    )
    header: Header | None = Field(
        default=None,
        description="Of csv: `true` where the first line names the columns, `false` where it is a row; columns are then named column_1, column_2. "
        "A list names the columns of files without a header. Default: `true`, and a first line that looks like a row is refused.",
    )
    skip_rows: Whole = Field(default=0, ge=0, le=10_000, description="Of csv: lines before the header that are left out.")
    write_disposition: WriteDisposition | None = Field(
        default=None, description="Default: merge where a primary key is declared; else append, keyed by file and row number."
    )

    def find_contradictions(self) -> Iterator[tuple[Path, str]]:
        """Yield what would lose rows, has no meaning for the format, or reads files outside of the source's folder."""
        yield from super().find_contradictions()
        if self.format != "csv":
            for key in ("delimiter", "header", "skip_rows"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    yield (key,), f"is for format: csv, and this stream's is {self.format}"
        if self.format == "parquet" and self.encoding:
            yield ("encoding",), "is for text formats, and Parquet is not a text format; remove it"
        if isinstance(self.header, tuple):
            for key in self.primary_key or ():
                if key not in self.header:
                    yield ("primary_key",), f"'{key}' is not one of the names in header{suggest(key, self.header)}"


class FilesSource(FolderSource):
    """Files in a folder or bucket; each run loads the new and the changed ones."""

    type: Literal["files"] = Field(description="Files in a folder or bucket.")
    limits: FileLimits = Field(default=FileLimits(), description="How large a file may be.")
    streams: dict[Name, FileStream] = Field(min_length=1, max_length=2000, description="The files to load, by the name that their rows' table gets.")
