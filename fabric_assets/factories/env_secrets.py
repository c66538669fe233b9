"""A reader of no `.env` file, which `dagster.yaml` names under `secrets` to replace Dagster's own reader.

Dagster's reader lets the file override variables that are really set. `definitions.py` reads the file instead, in the code server and at the start of each run.
"""

from collections.abc import Mapping
from typing import Any

from dagster._core.secrets.loader import SecretsLoader
from dagster._serdes import ConfigurableClass, ConfigurableClassData


class NoEnvFile(SecretsLoader, ConfigurableClass):
    """A loader of secrets that gives Dagster no variables."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> "NoEnvFile":
        return cls(inst_data=inst_data)

    def get_secrets_for_environment(self, location_name: str | None) -> dict[str, str]:
        return {}
