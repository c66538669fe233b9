"""A query -> Arrow tables, from the rows of MySQL and MariaDB as they come over the wire.

PyMySQL logs in and sends the statement. It splits rows value by value in Python, which takes ten times longer and is not used. A row is a packet: four bytes
of header, then each value as its length and its text (`Text Resultset Row` of the protocol). So the n-th values of all rows are found by a few of Arrow's
additions over whole columns. Numbers, dates and decimals travel as text, which Arrow reads exactly.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions while it is imported, where no type checker sees them.

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.connections import Connection
from pymysql.cursors import SSCursor
from pymysql.protocol import MysqlPacket
from sqlalchemy.exc import SQLAlchemyError

from fabric_assets.connectors.sql_database import row_reader
from fabric_assets.connectors.sql_database.database import Database
from fabric_assets.connectors.sql_database.query import BATCH_BYTES, Query
from fabric_assets.private_parts import is_verified
from fabric_assets.rows import arrow_types
from fabric_assets.rows.source_values import carry

_ROWS = 5_000
_log = logging.getLogger(__name__)
_HEADER, _LONGEST_PACKET, _RECEIVE_BYTES = 4, 0xFFFFFF, 1 << 20
# First byte of a value: its length up to 250, NULL, or how many bytes tell the length.
_NULL, _LENGTH_BYTES = 251, {252: 2, 253: 3, 254: 8}


@dataclass
class _Rows:
    """Received data, and the rows that are complete in it.

    Args:
        starts: where in the data each row begins, after its header.
    """

    data: bytearray = field(default_factory=bytearray)
    starts: list[int] = field(default_factory=list)
    end: int = 0


def read(database: Database, query: Query, label: str) -> Iterator[pa.Table]:
    """Read the rows; by the driver's documented calls if this version of PyMySQL is not a verified one."""
    if not has_known_parts():
        yield from _read_moment(database, query, label) if query.moment else row_reader.read(database, query, label)
        return
    try:
        # A moment's connection stays open for the next stream; it is no longer the pool's.
        pooled = None if query.moment else database.engine.raw_connection()
        connection: Any = query.moment.connection if query.moment else pooled and pooled.driver_connection
        try:
            value = connection.cursor().mogrify("%s", (query.bound[1],)) if query.bound else ""
            connection.query(query.build_sql(value), unbuffered=True)
            for rows in _receive(connection):
                yield _build_table(rows, query)
        except BaseException:
            # The next user of the connection would first read the rest of this result. PyMySQL itself would wait for its end.
            if connection._result is not None:
                connection._result.unbuffered_active = False
            connection._force_close()
            if pooled:
                pooled.invalidate()
            raise
        finally:
            if pooled:
                pooled.close()
    except (SQLAlchemyError, pymysql.MySQLError, OSError) as error:
        raise database.explain(error, label=label) from None


def _read_moment(database: Database, query: Query, label: str) -> Iterator[pa.Table]:
    """Read by the moment's own connection, which SQLAlchemy does not know: another one would read another moment."""
    assert query.moment is not None
    connection: Any = query.moment.connection
    try:
        try:
            value = connection.cursor().mogrify("%s", (query.bound[1],)) if query.bound else ""
            with connection.cursor(SSCursor) as cursor:
                cursor.execute(query.build_sql(value))
                while rows := cursor.fetchmany(_ROWS):
                    yield row_reader.build_table(rows, query)
        except BaseException:
            connection.close()
            raise
    except (pymysql.MySQLError, OSError) as error:
        raise database.explain(error, label=label) from None


def has_known_parts() -> bool:
    """Whether PyMySQL has the attributes used here, as far as can be checked without a connection. Warns once if it lacks some."""
    return is_verified("pymysql") and _has_attributes()


@cache
def _has_attributes() -> bool:
    connection = Connection(defer_connect=True)
    missing = [name for name in ("_result", "_rfile", "_force_close") if not hasattr(connection, name)]
    missing += [] if hasattr(MysqlPacket, "check_error") else ["MysqlPacket.check_error"]
    if missing:
        _log.warning("PyMySQL lacks %s, which ETL Fabric reads rows by: SQLAlchemy reads them, slower", ", ".join(missing))
    return not missing


def _receive(connection: Any) -> Iterator[_Rows]:
    """Yield the rows of the statement that the connection has sent, some megabytes at a time."""
    result, source, rows = connection._result, connection._rfile, _Rows()
    while not _note_rows(rows):
        if rows.end > BATCH_BYTES:
            rest = _Rows(rows.data[rows.end :])
            yield rows
            rows = rest
        received = source.read1(_RECEIVE_BYTES)
        if not received:
            raise pymysql.err.OperationalError(2013, "Lost connection to MySQL server during query")
        rows.data += received
    result.unbuffered_active, result.connection = False, None
    if rows.starts:
        yield rows


def _note_rows(rows: _Rows) -> bool:
    """Note the complete rows; return whether they were the last ones.

    Raises:
        pymysql.MySQLError: the server ends the result with an error.
    """
    data, starts, position = rows.data, rows.starts, rows.end
    size = len(data)
    while position + _HEADER < size:
        start = position + _HEADER
        length = int.from_bytes(data[position : position + 3], "little")
        if length == _LONGEST_PACKET:
            length = _join(data, position)
            size = len(data)
        if length is None or start + length > size:
            break
        if data[start] >= 0xFE and (length < 9 or data[start] == 0xFF):
            MysqlPacket(bytes(data[start : start + length]), "utf8").check_error()
            return True
        starts.append(start)
        position = rows.end = start + length
    return False


def _join(data: bytearray, position: int) -> int | None:
    """Join the packets into which a row of 16 MB or more is split.

    Returns:
        its length; None while a part is missing.
    """
    headers, end, length = [], position, _LONGEST_PACKET
    while length == _LONGEST_PACKET:
        if end + _HEADER > len(data):
            return None
        headers.append(end)
        length = int.from_bytes(data[end : end + 3], "little")
        end += _HEADER + length
    if end > len(data):
        return None
    for header in reversed(headers[1:]):
        del data[header : header + _HEADER]
    return end - position - _HEADER * len(headers)


def _build_table(rows: _Rows, query: Query) -> pa.Table:
    content = pa.Array.from_buffers(pa.uint8(), len(rows.data), [None, pa.py_buffer(rows.data)])
    count, positions, arrays = len(rows.starts), pa.array(rows.starts, pa.int64()), []
    numbers = pa.array(range(2 * count), pa.int64())
    # 0, n, 1, n + 1, 2, ...: turns n beginnings followed by n ends into beginning, end, beginning, end.
    woven = pc.add(pc.divide(numbers, 2), pc.multiply(pc.bit_wise_and(numbers, 1), count))
    evens = pc.multiply(numbers[:count], 2)
    for kind in query.schema.types:
        positions, lengths, nulls = _measure(content, positions)
        ends = pc.add(positions, lengths)
        # One text after the other: a value, what lies between it and the next row's, the next row's value, and so on.
        offsets = pa.concat_arrays([positions, ends]).take(woven).cast(pa.int32())
        carrier = arrow_types.BINARY if kind == arrow_types.BINARY else arrow_types.TEXT
        interleaved = pa.Array.from_buffers(carrier, 2 * count - 1, [None, offsets.buffers()[1], content.buffers()[1]])
        array = interleaved.take(pc.if_else(nulls, None, evens))
        arrays.append(array if kind == carrier else carry(array, kind))
        positions = ends
    return pa.table(arrays, names=query.names)


def _measure(content: pa.Array, positions: pa.Array) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Find the next value of each row.

    Args:
        positions: of each row's value, at its length.

    Returns:
        the position of each value after its length, its length, and whether it is NULL.
    """
    first = content.take(positions).cast(pa.int64())
    nulls = pc.equal(first, _NULL)
    lengths, positions = pc.if_else(nulls, 0, first), pc.add(positions, 1)
    for mark, width in _LENGTH_BYTES.items():
        longer = pc.equal(first, mark)
        if not pc.any(longer).as_py():
            continue
        starts, length = positions.filter(longer), pa.scalar(0, pa.int64())
        for byte in range(width):
            length = pc.add(length, pc.shift_left(content.take(pc.add(starts, byte)).cast(pa.int64()), 8 * byte))
        lengths = pc.replace_with_mask(lengths, longer, length)
        positions = pc.if_else(longer, pc.add(positions, width), positions)
    return positions, lengths, nulls
