"""The project's code location with sensors that look each second: what the daemon's test serves."""

from fabric_assets.factories.inbox import sensors as import_sensors

import_sensors._SECONDS = 1

from fabric_assets.definitions import defs  # noqa: E402

__all__ = ["defs"]
