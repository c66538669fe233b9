"""A column in which some values do not fit its type -> one Arrow column with both: the good values typed, the others as text.

One bad value in a column (a zero date, a text among numbers) must not turn the good values into text. So a reader keeps
both in one column of a batch, and shaping splits them into two.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fabric_assets.rows import arrow_types
from fabric_assets.rows.arrow_types import TEXT

ARROW_MISFITS: tuple[type[Exception], ...] = (pa.ArrowInvalid, pa.ArrowNotImplementedError)
# Raised by pyarrow and by drivers' conversions for a Python value that the type cannot hold; they include Arrow's own errors.
PYTHON_MISFITS: tuple[type[Exception], ...] = (ValueError, TypeError, ArithmeticError, NotImplementedError)


class MixedType(pa.ExtensionType):
    """A struct of a value and a text; each row has at most one of them. It exists inside one process only, so it is not registered."""

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        super().__init__(pa.struct([("value", kind), ("text", TEXT)]), "fabric.mixed")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "MixedType":
        return cls(storage_type.field("value").type)


def mix(values: pa.Array, texts: pa.Array) -> pa.Array:
    """Put values and texts into one mixed column.

    Args:
        texts: of the rows without a value in `values`; NULL elsewhere.
    """
    kind = MixedType(values.type)
    return pa.ExtensionArray.from_storage(kind, pa.StructArray.from_arrays([values, texts], fields=list(kind.storage_type)))


def add_texts(values: pa.Array, texts: pa.Array) -> pa.Array:
    """Add texts to a column, which may be mixed already."""
    if texts.null_count == len(texts):
        return values
    if isinstance(values.type, MixedType):
        values, known = (values.storage.field(name) for name in ("value", "text"))
        texts = pc.coalesce(known, texts)
    return mix(values, texts)


def split(column: Any) -> tuple[Any, ...]:
    """Split a mixed column into its values and its texts, each as long as the column; any other column stays one part."""
    if not isinstance(column.type, MixedType):
        return (column,)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kinds = {"value": column.type.kind, "text": TEXT}
    return tuple(pa.chunked_array([chunk.storage.field(name) for chunk in chunks], kind) for name, kind in kinds.items())


def list_values(column: Any) -> list[Any]:
    """List a column's values as Python objects; in a mixed column their types differ."""
    first, *others = (arrow_types.to_python(part) for part in split(column))
    for other in others:
        first = [right if left is None else left for left, right in zip(first, other, strict=True)]
    return first


def convert_in_halves(values: Any, kind: pa.DataType, convert: Callable[[Any], Any], *, misfits: tuple[type[Exception], ...] = ARROW_MISFITS) -> Any:
    """Convert values; one that does not fit becomes NULL.

    A failed conversion is repeated for each half, until each misfit is alone: one misfit in a million costs some twenty conversions more.

    Args:
        values: an Arrow array, or Python's values.
        convert: raises one of `misfits` if a value does not fit.
    """
    try:
        return convert(values)
    except misfits:
        if len(values) <= 1:
            return pa.nulls(len(values), kind)
    middle = len(values) // 2
    halves = [convert_in_halves(part, kind, convert, misfits=misfits) for part in (values[:middle], values[middle:])]
    return pa.chunked_array([chunk for half in halves for chunk in (half.chunks if isinstance(half, pa.ChunkedArray) else [half])], kind)


def cast_texts(texts: pa.Array, kind: pa.DataType, cast: Callable[[Any], Any]) -> pa.Array:
    """Cast the texts of a source to a type; a text that does not fit stays a text of the mixed column."""
    try:
        return cast(texts)
    except ARROW_MISFITS:
        return mix_texts(convert_in_halves(texts, kind, cast), texts)


def build_column(values: Sequence[Any], kind: pa.DataType, build: Callable[[Sequence[Any]], pa.Array], spell: Callable[[Any], bytes | str]) -> pa.Array:
    """Build a column from a driver's values; values that do not fit become texts of a mixed column.

    Args:
        build: makes an array of `kind`, if all values fit.
        spell: writes a value that does not fit as text. Bytes need not be UTF-8; if they are not, the engine rejects the row.
    """
    try:
        return build(values)
    except PYTHON_MISFITS:
        built = convert_in_halves(values, kind, build, misfits=PYTHON_MISFITS)
    spelt = (None if there or value is None else spell(value) for value, there in zip(values, built.is_valid().to_pylist(), strict=True))
    texts = pa.array([text.encode() if isinstance(text, str) else text for text in spelt], arrow_types.BINARY).view(TEXT)
    return mix_texts(built, texts)


def mix_texts(values: Any, texts: pa.Array) -> pa.Array:
    """Make a mixed column of values, and of the texts where a value is NULL."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if values.type == TEXT:
        return pc.coalesce(values, texts)
    return mix(values, pc.if_else(values.is_valid(), pa.scalar(None, TEXT), texts))
