"""The operators' own Dagster definitions, in the module that FABRIC_DEFINITIONS names -> the fleet's definitions with theirs, or an error that says why not.

The module is the operators' code. It runs in the code server and in each run, with all that these may read.
"""

import importlib
import traceback
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import dagster as dg
from dagster.components.definitions import LazyDefinitions

from fabric_assets.config.problems import Problem, clean
from fabric_assets.factories.run_tags import PLATFORM
from fabric_assets.masking import mask

SETTING = "FABRIC_DEFINITIONS"
_LIBRARIES = (Path(__file__).resolve().parents[2], Path(importlib.__file__).parent)
_REMEDY = f"correct the module and reload, or unset {SETTING}"


class OwnDefinitionsError(Exception):
    """The operators' definitions cannot be used.

    Args:
        problem: what is wrong, with the file and the line.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def merge_own_definitions(fleet: dg.Definitions, name: str) -> dg.Definitions:
    """Merge the definitions of a module with the fleet's.

    Args:
        name: the module's, as for `import`.

    Raises:
        OwnDefinitionsError: the module fails, repeats what the fleet has, or does not fit it.
    """
    try:
        module = importlib.import_module(name)
        own = _load(module)
        if repeated := sorted({*_list_names(fleet)} & {*_list_names(own)}):
            more = f" and {len(repeated) - 3} more" if len(repeated) > 3 else ""
            raise dg.DagsterInvariantViolationError(f"it repeats what the fleet has: {', '.join(repeated[:3])}{more}")
        if own.executor is not None:
            raise dg.DagsterInvariantViolationError("it has an executor, but the fleet's applies its rules to each run; give jobs their own")
        merged = dg.Definitions.merge(fleet, own)
        dg.Definitions.validate_loadable(merged)
    except (Exception, SystemExit) as error:  # the code is not ours: whatever it raises, the fleet loads
        raise OwnDefinitionsError(_build_problem(name, error)) from error
    return merged


def _load(module: ModuleType) -> dg.Definitions:
    """Find the one `Definitions` of the module, or the function with `@definitions` that builds it, as `dagster dev -m` does."""
    found = {id(value): value for value in vars(module).values() if isinstance(value, (dg.Definitions, LazyDefinitions))}
    if len(found) != 1:
        raise dg.DagsterInvariantViolationError(f"it has {len(found) or 'no'} Definitions; it needs one, or one function with @dagster.definitions")
    (definitions,) = found.values()
    loaded = definitions if isinstance(definitions, dg.Definitions) else definitions()
    if not isinstance(loaded, dg.Definitions):
        raise dg.DagsterInvariantViolationError("its function with @dagster.definitions returns no Definitions")
    return loaded


def _list_names(definitions: dg.Definitions) -> Iterator[str]:
    """List the assets, checks, jobs, schedules and sensors, as a message names them."""
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetsDefinition):
            yield from (f"the asset {key.to_user_string()}" for key in asset.keys)
            yield from (_name_check(key) for key in asset.check_keys)
        elif isinstance(asset, (dg.AssetSpec, dg.SourceAsset)):
            yield f"the asset {asset.key.to_user_string()}"
    for checks in definitions.asset_checks or ():
        yield from (_name_check(key) for key in checks.check_keys)
    for kind, named in (("job", definitions.jobs), ("schedule", definitions.schedules), ("sensor", definitions.sensors)):
        yield from (f"the {kind} {each.name}" for each in named or ())


def _name_check(key: dg.AssetCheckKey) -> str:
    return f"the check {key.name} of {key.asset_key.to_user_string()}"


def _build_problem(name: str, error: BaseException) -> Problem:
    file, line = _find_line(name, error)
    said = ": ".join(dict.fromkeys(_describe(error)))
    return Problem(PLATFORM, file, line, 1, SETTING, clean(mask(f"{name}: {said}; remedy: {_REMEDY}")))


def _describe(error: BaseException | None) -> Iterator[str]:
    """Describe an exception and its causes: Dagster's own often say only which definition is wrong."""
    while error is not None:
        said = " ".join(str(error).split())
        yield said if isinstance(error, dg.DagsterInvariantViolationError) else f"{type(error).__name__}: {said}".strip(": ")
        error = error.__cause__


def _find_line(name: str, error: BaseException) -> tuple[Path, int]:
    """Find the operators' last line on the way to the error, or else the first line of their module."""
    if isinstance(error, SyntaxError) and error.filename:
        return Path(error.filename), error.lineno or 1
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_file() and not any(map(file.is_relative_to, _LIBRARIES)) and "site-packages" not in file.parts:
            return file, frame.lineno or 1
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        spec = None
    return Path(spec.origin if spec and spec.origin else name), 1
