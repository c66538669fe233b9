"""The request `select`: tenants' selections -> the models that dbt's own selector finds for them in the prepared project.

A tenant sees the shared nodes and its own. The others' are removed from the manifest and the graph before dbt's selector gets them.
"""

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from dbt.cli.flags import Flags
from dbt.cli.types import Command
from dbt.compilation import Linker
from dbt.config.runtime import load_profile, load_project
from dbt.contracts.graph.manifest import Manifest
from dbt.flags import set_flags
from dbt.graph.graph import Graph, UniqueId
from dbt_common.context import set_invocation_context
from dbt_common.events.contextvars import task_contextvars

from fabric_assets.own_faults import find_own_fault
from fabric_assets.transform.folders import RunFolder
from fabric_assets.transform.renames import list_replaced
from fabric_assets.transform.worker.adapters.adapter import get_adapter
from fabric_assets.transform.worker.manifest import TENANT_PLACEHOLDER, get_owner, load_parts
from fabric_assets.transform.worker.parse.packages import allow_missing_secrets
from fabric_assets.transform.worker.profiles import PROFILE, write_profile
from fabric_assets.transform.worker.selectors import MODEL_PREFIXES, NamedSelectors, Refused, SelectorFinder, shorten

# A source's own id stands for the test of its freshness.
_TESTS = ("test.", "unit_test.", "source.")


class _TooLong(BaseException):
    """The error of a selection that has used up its processor time. No `except Exception` of dbt's catches it."""


def select(request: dict[str, Any], run: RunFolder, emit: Callable[[dict[str, Any]], None]) -> None:
    """Evaluate all selections, and emit the result of each."""
    project_dir = request["project_dir"]
    write_profile(run.path, get_adapter(request["adapter"]).build_placeholder(run.path))
    folders = {"project_dir": project_dir, "profiles_dir": str(run.path), "target_path": str(run.path / "target"), "log_path": str(run.path)}
    # Tests come with the models that they read, not by a selection. `empty` leaves out those that no selector names.
    set_flags(Flags.from_dict(Command.LIST, {**folders, "indirect_selection": "empty"}))
    allow_missing_secrets(project_dir)
    set_invocation_context(os.environ)  # selectors.yml may call env_var()
    evaluator = _Evaluator(Path(request["file"]), _load_named(project_dir), seconds=request["seconds"])
    with task_contextvars(project_root=project_dir):
        for index, selection in enumerate(request["selections"]):
            emit({"event": "selection", "index": index, **evaluator.evaluate(**selection)})


def _load_named(project_dir: str) -> NamedSelectors:
    """Load the selectors of the project's selectors.yml, which the parse has checked."""
    if not (Path(project_dir) / "selectors.yml").is_file():
        return {}
    named: Any = load_project(project_dir, False, load_profile(project_dir, {}, PROFILE), {}).selectors
    return {name: entry["definition"] for name, entry in named.items()}


class _Evaluator:
    """An evaluator of selections on one prepared project.

    Args:
        file: the prepared manifest.
        seconds: processor time for each selection.
    """

    def __init__(self, file: Path, named: NamedSelectors, *, seconds: float) -> None:
        self._parts = load_parts(file)
        self._named, self._seconds = named, seconds
        manifest = Manifest(**self._parts)
        linker = Linker()
        linker.link_graph(manifest)
        self._graph = linker.graph
        nodes = {**manifest.nodes, **manifest.unit_tests}
        self._owners = {key: owner for key, node in nodes.items() if (owner := get_owner(node.original_file_path))}
        shared = [node for key, node in manifest.nodes.items() if key.startswith(MODEL_PREFIXES) and key not in self._owners]
        replaced = {relation: node for node in shared for relation in list_replaced(node.config.meta or {})}
        self._renamed = {name: ".".join(node.fqn) for (_, name), node in replaced.items()}
        relations = {node.unique_id: (node.schema.removeprefix(f"{TENANT_PLACEHOLDER}_"), node.alias) for node in shared}
        # The unique ids of models that stay under an earlier name for a release -> those of the models that have replaced them.
        self._replaced = {key: replaced[relation].unique_id for key, relation in relations.items() if relation in replaced}
        self._tenant, self._finder = "", self._build_finder("")
        # The messages of texts that took too long, so that another tenant's selection does not try such a text again.
        self._slow = dict[str, str]()

    def evaluate(self, tenant: str, select: list[str], exclude: list[str]) -> dict[str, Any]:
        """Evaluate one selection.

        Args:
            tenant: the one whose own models it sees beside the shared ones; empty for shared models only.
        """
        if tenant != self._tenant:
            self._tenant, self._finder = tenant, self._build_finder(tenant)
        found: dict[str, set[str]] = {"select": set(), "exclude": set()}
        wrong = list[tuple[str, int, str]]()
        lasting = True
        field, index, text = "select", 0, ""
        try:
            with _limited(self._seconds):
                for field, index, text in [*(("select", *item) for item in enumerate(select)), *(("exclude", *item) for item in enumerate(exclude))]:
                    try:
                        found[field] |= self._find(text, field)
                    except Refused as error:
                        wrong.append((field, index, str(error)))
                    except Exception as error:  # noqa: BLE001 - whatever one tenant's text brings about, the others' selections are evaluated
                        fault = find_own_fault(error, f"the selector '{shorten(text)}'")
                        lasting = lasting and fault is None
                        traceback.print_exception(error)
                        message = f"dbt cannot evaluate the selector '{shorten(text)}': {type(error).__name__}: {error}"
                        wrong.append((field, index, fault.message if fault else message))
        except _TooLong:
            self._slow[text] = f"the selector '{shorten(text)}' takes more than {self._seconds:g} s of processor time to evaluate; write a simpler one"
            wrong.append((field, index, self._slow[text]))
        own = {key for key, owner in self._owners.items() if owner == tenant}
        models = {key for key in (own | found["select"]) - found["exclude"] if key.startswith(MODEL_PREFIXES)}
        models |= {key for key in self._complete(models) - found["exclude"] if key.startswith(MODEL_PREFIXES)}
        left_out = {key for key in found["exclude"] if key.startswith(_TESTS)}
        return {"models": sorted(models), "left_out": sorted(left_out), "wrong": wrong, "lasting": lasting}

    def _complete(self, models: set[str]) -> set[str]:
        """Find what a selection of an earlier release also needs: what an old name reads now, and the old name of each model."""
        below = {key for old in models & self._replaced.keys() for key in Graph(self._graph).ancestors(UniqueId(old))}
        return below | {old for old, new in self._replaced.items() if new in models | below}

    def _find(self, text: str, field: str) -> set[str]:
        if text in self._slow:
            raise Refused(self._slow[text])
        return self._finder.find(text, needs_models=field == "select")

    def _build_finder(self, tenant: str) -> SelectorFinder:
        """Build the finder of the shared nodes and the tenant's own."""
        hidden = {key for key, owner in self._owners.items() if owner != tenant}
        parts = {part: {key: node for key, node in self._parts[part].items() if key not in hidden} for part in ("nodes", "unit_tests")}
        graph = self._graph.copy()
        graph.remove_nodes_from(hidden)
        return SelectorFinder(Manifest(**{**self._parts, **parts}), Graph(graph), self._named, self._renamed)


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Raise `_TooLong` once, in the block or at its end, when its processor time is used up."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TooLong

    old = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
