"""A tenant's tables and models -> one Parquet file each below DIR/<tenant>, and a manifest; read back and counted before anything is deleted.

It writes one row group at a time, so a table of any size needs little memory. Types are kept exactly. If a value does not fit the Parquet type (a NaN among
decimals, infinity as a date), the column is exported as the database's text. The manifest says so.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote as percent_encode

import pyarrow as pa
import pyarrow.parquet as pq

from fabric_assets.errors import ConfigurationError, DestinationError
from fabric_assets.offboarding.journal import sync_folder, write_durably
from fabric_assets.offboarding.warehouses import Column, Relation, Warehouse, carry
from fabric_assets.own_faults import is_own_fault
from fabric_assets.private_files import make_private_folder

MANIFEST = "manifest.json"
_MARK = ".export.json"
_LONGEST = 150
_CHUNK = 1 << 20


def prepare_export(folder: Path, begun: Mapping[str, str]) -> None:
    """Create the folder of an export, or continue with the one that this offboarding has begun.

    Raises:
        ConfigurationError: it holds other files already.
    """
    mark = folder / _MARK
    # A killed call may leave an unfinished mark.
    unfinished = list(folder.glob(f".{_MARK}.*"))
    foreign = set(folder.iterdir()) - {mark, *unfinished} if folder.exists() else set[Path]()
    if (foreign or mark.exists()) and (not mark.is_file() or json.loads(mark.read_bytes()) != dict(begun)):
        raise ConfigurationError(f"--export: {folder} holds other files already", remedy="name another folder, or move these away")
    make_private_folder(folder)
    folder.chmod(0o700)
    for left in unfinished:
        left.unlink()
    write_durably(mark, json.dumps(dict(begun)).encode())


def export_tables(warehouses: Sequence[Warehouse], folder: Path, tenant: str, report: Callable[[str], None]) -> dict[str, Any]:
    """Write every table, every view that the database can execute, and the manifest. The manifest names the views that are left out.

    Raises:
        DestinationError: an exported file does not hold what the database holds.
    """
    files, left = list[dict[str, Any]](), list[dict[str, str]]()
    for number, warehouse in enumerate(warehouses, start=1):
        # A tenant that has moved from one destination to another has tables of the same names in both.
        part = folder if len(warehouses) == 1 else folder / f"warehouse_{number}"
        for relation in warehouse.list_relations():
            report(f"export: {relation.schema}.{relation.name}")
            try:
                files.append(_export(warehouse, relation, part, folder))
            except Exception as error:
                # A view holds no rows itself, and may have been broken for years. But a full disk or a lost connection is not the view's fault.
                if is_own_fault(error) or relation.kind != "view" or not (reason := warehouse.find_fault(relation)):
                    raise
                left.append({"schema": relation.schema, "view": relation.name, "reason": reason})
                report(f"not exported: the view {relation.schema}.{relation.name}, which the database cannot execute ({reason})")
    manifest = {"tenant": tenant, "warehouses": [warehouse.location for warehouse in warehouses], "files": files, "views_left_out": left}
    content = json.dumps(manifest, indent=1).encode()
    write_durably(folder / MANIFEST, content)
    return {"folder": str(folder), "manifest_sha256": hashlib.sha256(content).hexdigest(), "files": files, "views_left_out": left}


def check_export(result: Mapping[str, Any]) -> None:
    """Check that the exported files are still there, byte for byte.

    Raises:
        DestinationError: a file is missing or has changed.
    """
    for entry in result["files"]:
        file = Path(result["folder"]) / entry["file"]
        if not file.is_file() or _digest(file) != entry["sha256"]:
            raise DestinationError(
                f"the export's file {file} is gone, or is another one than was written",
                remedy="nothing was deleted yet: bring it back; or remove the journal in FABRIC_DATA_DIR/offboarded and begin anew",
            )


def _export(warehouse: Warehouse, relation: Relation, part: Path, folder: Path) -> dict[str, Any]:
    target = part / _name(relation.schema) / f"{_name(relation.name)}.parquet"
    make_private_folder(target.parent)
    try:
        columns = warehouse.get_columns(relation, as_text=False)
        rows = _write(warehouse, relation, columns, target)
    except (pa.ArrowException, OverflowError, ValueError) as error:
        columns = warehouse.get_columns(relation, as_text=True)
        if columns == warehouse.get_columns(relation, as_text=False):
            raise DestinationError(f"{relation.schema}.{relation.name} cannot be exported: {type(error).__name__}") from error
        rows = _write(warehouse, relation, columns, target)
    found = sum(batch.num_rows for batch in pq.ParquetFile(target).iter_batches(columns=[columns[0].name] if columns else None))
    if found != rows:
        raise DestinationError(f"{relation.schema}.{relation.name} holds {rows:,} rows, and {found:,} were read back from its export", remedy="try again")
    kinds = dict(zip((column.name for column in columns), pq.read_schema(target).types, strict=True))
    return {
        "file": target.relative_to(folder).as_posix(),
        "schema": relation.schema,
        "table": relation.name,
        "kind": relation.kind,
        "rows": rows,
        "bytes": target.stat().st_size,
        "sha256": _digest(target),
        "columns": {column.name: {"type": column.declared, "kept_as": str(kinds[column.name])} for column in columns},
    }


def _write(warehouse: Warehouse, relation: Relation, columns: Sequence[Column], target: Path) -> int:
    draft = target.with_name(f"{target.name}.part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            rows, written = _write_rows(warehouse, relation, columns, stream)
            stream.flush()
            os.fsync(stream.fileno())
    except BaseException:
        draft.unlink()
        raise
    if written != rows:
        raise DestinationError(f"{relation.schema}.{relation.name} holds {rows:,} rows, and {written:,} of them were read", remedy="try again")
    draft.replace(target)
    sync_folder(target.parent)
    return rows


def _write_rows(warehouse: Warehouse, relation: Relation, columns: Sequence[Column], stream: BinaryIO) -> tuple[int, int]:
    """Write a relation's rows. Give how many rows there are, and how many were written."""
    written = 0
    with warehouse.read(relation, columns) as (rows, batches):
        empty = pa.RecordBatch.from_arrays([pa.array([], kind) for kind in batches.schema.types], schema=batches.schema)
        with pq.ParquetWriter(stream, carry(empty, columns).schema, compression="zstd") as writer:
            for raw in batches:
                writer.write_batch(carry(raw, columns))
                written += raw.num_rows
    return rows, written


def _name(name: str) -> str:
    """Write a database's name, whatever its characters, as one step of a path: without slashes or a leading dot, and not too long."""
    encoded = percent_encode(name, safe="")
    if encoded.startswith("."):
        encoded = f"%2E{encoded[1:]}"
    if len(encoded) > _LONGEST:
        encoded = f"{encoded[:_LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return encoded


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
