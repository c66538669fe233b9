"""Tenants' selections, as dbt's own selector has evaluated them -> a file beside the prepared project, and back.

The entries count for one fingerprint of the project. Entries of other tenants and of earlier YAML stay: each process that shares the file may serve another
part of the fleet.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from fabric_assets.private_files import write_atomically


@dataclass(frozen=True)
class Selection:
    """A tenant's `select` and `exclude`.

    Args:
        tenant: the one whose own models it sees; empty for all tenants without own models, so that they share an entry.
    """

    tenant: str
    select: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(frozen=True)
class WrongSelector:
    """One text of a selection that dbt cannot evaluate, or that matches nothing.

    Args:
        field: `select` or `exclude`.
        index: its position in that list.
    """

    field: str
    index: int
    message: str


@dataclass(frozen=True)
class Evaluation:
    """The result of a selection.

    Args:
        models: unique ids, including ephemeral models.
        left_out: unique ids of the tests, and of the sources for their freshness, that `exclude` itself names.
    """

    models: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()
    wrong: tuple[WrongSelector, ...] = ()


def read_selections(file: Path, *, fingerprint: str) -> dict[Selection, Evaluation]:
    """Read the evaluated selections of a project; empty where the file is missing, damaged, or of another project."""
    try:
        facts = file.stat()
    except OSError:
        return {}
    known, selections = _read_once(file, (facts.st_mtime_ns, facts.st_size, facts.st_ino))
    return selections if known == fingerprint else {}


@lru_cache(maxsize=8)
def _read_once(file: Path, _state: tuple[int, int, int]) -> tuple[str, dict[Selection, Evaluation]]:
    try:
        content = json.loads(file.read_text())
        return content["fingerprint"], {_read_selection(raw): read_evaluation(raw) for raw in content["selections"]}
    except (OSError, ValueError, LookupError, TypeError):
        return "", {}


def _read_selection(raw: Mapping[str, list[str]]) -> Selection:
    return Selection(str(raw["tenant"]), tuple(raw["select"]), tuple(raw["exclude"]))


def read_evaluation(raw: Mapping[str, list[str]]) -> Evaluation:
    """Read an evaluation as the dbt process reports it and the file holds it."""
    wrong = tuple(WrongSelector(field, int(index), message) for field, index, message in raw["wrong"])
    return Evaluation(frozenset(raw["models"]), frozenset(raw["left_out"]), wrong)


def write_selections(file: Path, selections: Mapping[Selection, Evaluation], *, fingerprint: str) -> None:
    """Write all evaluated selections of a project."""
    content = {"fingerprint": fingerprint, "selections": [asdict(selection) | _dump(evaluation) for selection, evaluation in selections.items()]}
    write_atomically(file, lambda stream: stream.write(json.dumps(content).encode()))


def _dump(evaluation: Evaluation) -> dict[str, object]:
    wrong = [(found.field, found.index, found.message) for found in evaluation.wrong]
    return {"models": sorted(evaluation.models), "left_out": sorted(evaluation.left_out), "wrong": wrong}
