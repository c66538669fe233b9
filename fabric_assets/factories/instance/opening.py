"""The Dagster instance of this project: in DAGSTER_HOME, or in a folder below FABRIC_DATA_DIR that is created when needed."""

import os
import shutil
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError
from fabric_assets.factories.instance import event_log
from fabric_assets.factories.instance.storage_errors import explain, get_cause
from fabric_assets.own_faults import is_own_fault
from fabric_assets.private_files import FileLock, make_private_folder
from fabric_assets.private_parts import is_verified
from fabric_assets.settings import Settings

CONFIG = "dagster.yaml"


def get_instance(settings: Settings, *, root: Path | None = None) -> dg.DagsterInstance:
    """Open the instance that the UI shows, so that the UI shows the runs of `fabric run` too. An event log on SQLite is replaced by a faster one.

    Args:
        root: the folder of the project's own dagster.yaml; default: the current folder.

    Raises:
        ConfigurationError: DAGSTER_HOME is not a folder, or its dagster.yaml cannot be used.
        RetriableError: Dagster's database does not answer, or has no room.
    """
    home = os.environ.get("DAGSTER_HOME")
    if not home:
        home = str(prepare_home(settings, root=root or Path.cwd()))
        os.environ["DAGSTER_HOME"] = home  # Dagster's own code reads it, e.g. for the storage's folder
    if not Path(home).is_absolute() or not Path(home).is_dir():
        raise ConfigurationError(
            f"DAGSTER_HOME={home} is not a folder, or not an absolute path", remedy="name the absolute path of an existing folder, or unset DAGSTER_HOME"
        )
    try:
        ref = InstanceRef.from_dir(home)
        kept = ref.storage_data
        if kept is None or kept.class_name != "DagsterSqliteStorage" or not is_verified("dagster"):
            return dg.DagsterInstance.from_ref(ref)
        ref = ref._replace(storage_data=kept._replace(module_name=event_log.__name__, class_name=event_log.KeptStorage.__name__))
        # If two processes find the files missing, Dagster lets one fail, and may leave a file that no process can open.
        with FileLock(Path(home) / ".opening"):
            return dg.DagsterInstance.from_ref(ref)
    except dg.DagsterInvalidConfigError as error:
        reasons = "; ".join(" ".join(problem.message.partition("Stack Trace")[0].split()) for problem in error.errors)
        raise ConfigurationError(f"{home}/{CONFIG} cannot be used: {reasons}", remedy="set what it names, or correct it") from None
    except Exception as error:
        if is_own_fault(error):
            raise
        # dagster.yaml names the storage's class, which has a driver of its own.
        cause = get_cause(error)
        if explained := explain(cause, home):
            raise explained from None
        # No message quotes a value that is not a URL: a part of it may be the password.
        raise ConfigurationError(
            f"the storage that {home}/{CONFIG} names cannot be opened ({type(cause).__name__})",
            remedy="write its URL as postgresql://user:password@host:port/database",
        ) from None


def prepare_home(settings: Settings, *, root: Path) -> Path:
    """Create the default DAGSTER_HOME, and copy the project's dagster.yaml into it."""
    home = make_private_folder(naming.dagster_home(settings.data_dir))
    package = Path(__file__).resolve().parent.parent.parent
    # The project's own file, or else ours, of the installed package or the checkout. Without one Dagster would turn telemetry on.
    for folder in (root, package, package.parent):
        if (folder / CONFIG).is_file():
            shutil.copyfile(folder / CONFIG, home / CONFIG)
            break
    return home
