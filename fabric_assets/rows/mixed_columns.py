"""A column in which some values do not fit their type -> one column of a table: the good values typed, the others as text beside them.

One bad value in a column (a zero date, a text among numbers) must not make texts of the good ones: a text says less than its value.
So a reader keeps both in one column of a batch, and shaping takes them apart.
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
# What pyarrow and drivers' conversions raise of a Python value that a type cannot hold; Arrow's own errors are among them.
PYTHON_MISFITS: tuple[type[Exception], ...] = (ValueError, TypeError, ArithmeticError, NotImplementedError)


class MixedType(pa.ExtensionType):
    """A struct of a value and a text, of which each row has at most one. It exists inside one process only, so it is not registered."""

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        super().__init__(pa.struct([("value", kind), ("text", TEXT)]), "fabric.mixed")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type: pa.DataType, serialized: bytes) -> "MixedType":
        return cls(storage_type.field("value").type)


def mix(values: pa.Array, texts: pa.Array) -> pa.Array:
    """Args:
    texts: of the rows without a value in `values`; NULL elsewhere.
    """
    kind = MixedType(values.type)
    return pa.ExtensionArray.from_storage(kind, pa.StructArray.from_arrays([values, texts], fields=list(kind.storage_type)))


def add_texts(values: pa.Array, texts: pa.Array) -> pa.Array:
    """Put texts beside the values of a column, which may be mixed already."""
    if texts.null_count == len(texts):
        return values
    if isinstance(values.type, MixedType):
        values, known = (values.storage.field(name) for name in ("value", "text"))
        texts = pc.coalesce(known, texts)
    return mix(values, texts)


def split(column: Any) -> tuple[Any, ...]:
    """The parts of a column, one per type, each as long as the column; no row has a value in two of them."""
    if not isinstance(column.type, MixedType):
        return (column,)
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kinds = {"value": column.type.kind, "text": TEXT}
    return tuple(pa.chunked_array([chunk.storage.field(name) for chunk in chunks], kind) for name, kind in kinds.items())


def list_values(column: Any) -> list[Any]:
    """Python's values of a column, whatever type each has."""
    first, *others = (arrow_types.to_python(part) for part in split(column))
    for other in others:
        first = [right if left is None else left for left, right in zip(first, other, strict=True)]
    return first


def convert_in_halves(values: Any, kind: pa.DataType, convert: Callable[[Any], Any], *, misfits: tuple[type[Exception], ...] = ARROW_MISFITS) -> Any:
    """Convert values, NULL where one does not fit: they are halved until the misfits are alone. One in a million costs some twenty conversions more.

    Args:
        values: an Arrow array, or Python's values.
        convert: refuses values that hold a misfit.
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
    """Cast what a source wrote as text; where a value does not fit, its text stays beside the others."""
    try:
        return cast(texts)
    except ARROW_MISFITS:
        return mix_texts(convert_in_halves(texts, kind, cast), texts)


def build_column(values: Sequence[Any], kind: pa.DataType, build: Callable[[Sequence[Any]], pa.Array], spell: Callable[[Any], bytes | str]) -> pa.Array:
    """Build a column from a driver's values; those that do not fit are spelt beside the others.

    Args:
        build: makes an array of `kind` out of values that all fit.
        spell: writes one that does not; bytes need not be UTF-8, the engine sets such a row aside.
    """
    try:
        return build(values)
    except PYTHON_MISFITS:
        built = convert_in_halves(values, kind, build, misfits=PYTHON_MISFITS)
    spelt = (None if there or value is None else spell(value) for value, there in zip(values, built.is_valid().to_pylist(), strict=True))
    texts = pa.array([text.encode() if isinstance(text, str) else text for text in spelt], arrow_types.BINARY).view(TEXT)
    return mix_texts(built, texts)


def mix_texts(values: Any, texts: pa.Array) -> pa.Array:
    """Values, and the texts of those that are NULL."""
    values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    if values.type == TEXT:
        return pc.coalesce(values, texts)
    return mix(values, pc.if_else(values.is_valid(), pa.scalar(None, TEXT), texts))
