"""dlt's process-wide configuration -> an empty one that only this module fills.

dlt looks up every credential field that it is not given: in the environment, in `.dlt/*.toml` of the current folder, in the
home. In a fleet that fills one tenant's missing password from another's scope. So the look-up itself is replaced: after
`isolate_dlt` nothing but the settings below answers, whatever the environment holds.
"""

import threading
from pathlib import Path
from typing import Any

from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import ConfigProvider
from dlt.common.configuration.providers.doc import BaseDocProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.runtime.run_context import RunContext

from fabric_assets.private_files import make_private_folder

DLT_SETTINGS: dict[str, Any] = {
    "runtime": {"dlthub_telemetry": False, "log_level": "CRITICAL"},
    "providers": {"enable_airflow_secrets": False, "enable_google_secrets": False, "enable_aws_secrets": False},
    # Raw rows do not stay in the working folder once they are in the warehouse.
    "load": {"delete_completed_jobs": True, "raise_on_failed_jobs": True, "raise_on_max_retries": 3},
    "extract": {"workers": 1},
    "normalize": {"workers": 1},
}

_lock = threading.Lock()


class _FixedProvider(BaseDocProvider):
    """Answers from a dictionary, and from nowhere else."""

    @property
    def name(self) -> str:
        return "ETL Fabric"

    @property
    def supports_secrets(self) -> bool:
        return True

    @property
    def supports_sections(self) -> bool:
        return True

    @staticmethod
    def get_key_name(key: str, *sections: str) -> str:
        return ".".join(part for part in (*sections, key) if part)


class _IsolatedContext(RunContext):
    """A run context whose folders are ours and whose providers know only `DLT_SETTINGS`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = str(folder)

    @property
    def name(self) -> str:
        return "etl_fabric"

    @property
    def global_dir(self) -> str:
        return self._folder

    @property
    def run_dir(self) -> str:
        return self._folder

    @property
    def local_dir(self) -> str:
        return self._folder

    @property
    def data_dir(self) -> str:
        return self._folder

    def initial_providers(self) -> list[ConfigProvider]:
        return [_FixedProvider(DLT_SETTINGS)]


def isolate_dlt(folder: Path) -> None:
    """Cut this process's dlt off from the environment and from `.dlt` folders; once is enough for all tenants.

    Args:
        folder: where dlt may keep what belongs to no pipeline.
    """
    with _lock:
        plugged = Container()[PluggableRunContext]
        if not isinstance(plugged.context, _IsolatedContext):
            make_private_folder(folder)
            plugged.reload(_IsolatedContext(folder))
