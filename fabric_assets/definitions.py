"""The code location that `workspace.yaml` and `[tool.dg]` name: settings -> tenants -> definitions."""

import os

import dagster as dg

from fabric_assets.env_file import load_env_file
from fabric_assets.factories.fleet import build_definitions
from fabric_assets.settings import forget_provisioning, load_settings


@dg.definitions
def defs() -> dg.Definitions:
    """Build the definitions of every tenant that this process serves: in the code server, and in each run as it starts."""
    load_env_file()
    forget_provisioning()
    settings = load_settings()
    # Only under these commands may loading start a process, so that a developer sees an edited model or selection at the next reload.
    prepares = bool(os.environ.get("DAGSTER_IS_DEV_CLI") or os.environ.get("DAGSTER_IS_DEFS_VALIDATION_CLI"))
    return build_definitions(settings, prepares=prepares)
