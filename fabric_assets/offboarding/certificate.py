"""A finished journal and its proof -> the certificate, as JSON and as Markdown. It says what was deleted, how much, when and by whom. It holds no secret and
no row."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fabric_assets import naming
from fabric_assets.offboarding.journal import Journal, get_now, write_durably

FORMAT = 1
# What no search of this machine can show to be gone.
OUTSIDE = (
    "backups and snapshots of disks, databases and buckets, and what a file system keeps of deleted blocks",
    "the write-ahead log of a Postgres server, its replicas, and its dead rows until they are vacuumed",
    "earlier versions of objects in buckets that keep versions",
    "logs that were sent elsewhere, alerts that were sent, and what was read out of the warehouse by others",
    "the repository: the tenant's YAML, dbt models of its own and what is parsed of them (dbt/prepared), their history",
    "other machines with a FABRIC_DATA_DIR or DAGSTER_HOME of their own",
    "the systems that the tenant's data was loaded from, and their credentials",
)


def build_certificate(tenant: str, journal: Journal, left: Sequence[str]) -> dict[str, Any]:
    """Build the certificate from what the journal has recorded.

    Args:
        left: what the proof has found to be left; a certificate is written only if that is empty.
    """
    steps = journal.steps
    return {
        "format": FORMAT,
        "certificate": "offboarding",
        "tenant": tenant,
        "begun": journal.begun,
        "ended_at": get_now(),
        "destination": steps["survey"]["destination"],
        "deleted": steps["survey"]["found"],
        "export": steps.get("export"),
        "proof": {"left": list(left), "searched": steps["survey"]["searched"]},
        "outside_of_this_proof": [*OUTSIDE, *steps["survey"]["outside"]],
    }


def write_certificate(certificate: Mapping[str, Any], data_dir: Path) -> Path:
    """Write the certificate, and keep an earlier one of the same tenant beside it.

    Returns:
        the JSON's path; the Markdown is beside it.
    """
    file = naming.offboarding_certificate(data_dir, certificate["tenant"])
    set_earlier_aside(file)
    write_durably(file.with_suffix(".md"), to_markdown(certificate).encode())
    # Written last, because its existence says that the offboarding is complete.
    write_durably(file, json.dumps(certificate, indent=1).encode())
    return file


def set_earlier_aside(file: Path) -> None:
    """Rename the certificate of an earlier offboarding after the time at which that one began: it is evidence too."""
    if file.exists():
        moment = "".join(letter for letter in json.loads(file.read_bytes())["begun"]["at"] if letter.isalnum())
        for suffix in (".md", ".json"):
            if (old := file.with_suffix(suffix)).exists():
                old.replace(file.with_name(f"{file.stem}.{moment}{suffix}"))


def to_markdown(certificate: Mapping[str, Any]) -> str:
    """Write the certificate for people."""
    begun, deleted, export = certificate["begun"], certificate["deleted"], certificate["export"]
    lines = [
        f"# Offboarding of {certificate['tenant']}",
        "",
        f"Begun {begun['at']}, ended {certificate['ended_at']}, by {begun['user']} on {begun['host']}, with {begun['platform']}.",
        f"Destination: {certificate['destination']}.",
        "",
        "## Deleted",
        "",
        *_build_table(("schema", "table", "kind", "rows"), [_get_cells(relation) for relation in deleted["relations"]]),
        *_build_table(("files", "number", "bytes"), [(_name_files(kind, count), count["files"], count["bytes"]) for kind, count in deleted["files"].items()]),
        *_build_table(("bucket", "objects", "bytes"), [(path, count["objects"], count["bytes"]) for path, count in deleted["buckets"].items()]),
        *_build_table(("in Dagster's storage", "number"), list(deleted["history"].items())),
        *_build_table(("in the database", "names"), [(kind, ", ".join(names)) for kind, names in deleted["database"].items()]),
        f"Sealed secrets: {', '.join(deleted['secrets']) or 'none'}.",
        "",
        "## Export",
        "",
        *(["None was asked for.", ""] if export is None else [f"To {export['folder']}; SHA-256 of its manifest: {export['manifest_sha256']}.", ""]),
        *_build_table(("file", "rows", "SHA-256"), [(entry["file"], entry["rows"], entry["sha256"]) for entry in (export or {"files": []})["files"]]),
        *_describe_left_out((export or {}).get("views_left_out", [])),
        "## Proof",
        "",
        f"Looked through again: {'; '.join(certificate['proof']['searched'])}.",
        "Left: nothing." if not certificate["proof"]["left"] else "Left:",
        *(f"- {entry}" for entry in certificate["proof"]["left"]),
        "",
        "## Outside of this proof",
        "",
        *(f"- {entry}" for entry in certificate["outside_of_this_proof"]),
    ]
    return "\n".join(lines) + "\n"


def _describe_left_out(views: Sequence[Mapping[str, str]]) -> list[str]:
    if not views:
        return []
    table = _build_table(("schema", "view", "error"), [(entry["schema"], entry["view"], entry["reason"]) for entry in views])
    return ["## Not exported", "", "Views that the database could not execute; they held no rows of their own.", "", *table]


def _name_files(kind: str, count: Mapping[str, Any]) -> str:
    parts = ", ".join(f"{number} {part}" for part, number in count.get("parts", {}).items())
    return f"{kind} ({parts})" if parts else kind


def _get_cells(relation: Mapping[str, Any]) -> tuple[str, str, str, str]:
    rows = "" if relation["rows"] is None else f"{relation['rows']:,}"
    return relation["schema"], relation["table"], relation["kind"], rows


def _build_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    if not rows:
        return []
    escaped = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *(f"| {' | '.join(row)} |" for row in escaped), ""]
