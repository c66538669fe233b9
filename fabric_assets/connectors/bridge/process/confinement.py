"""What this machine can confine of a connector, in words."""

import sys
from collections.abc import Iterator

from fabric_assets.connectors.bridge.process import landlock, system_calls

_REMEDY = "run on Linux 6.7 or newer with Landlock; or set trusted: true, which gives the connector all rights of the platform's user"


def find_gap() -> str | None:
    """Say why connectors cannot be confined here; None if they can be."""
    if sys.platform != "linux":
        return "connectors run on Linux alone"
    if not system_calls.is_supported():
        return f"it cannot be confined: the system calls of this machine's processor are not known; {_REMEDY}"
    version = landlock.get_version()
    if version < landlock.NETWORK_VERSION:
        return f"it cannot be confined: the kernel has Landlock version {version}, and version {landlock.NETWORK_VERSION} first covers the network; {_REMEDY}"
    return None


def describe_confinement() -> Iterator[str]:
    """Describe what is confined, and what is not."""
    if gap := find_gap():
        yield gap.replace("it cannot", "connectors cannot")
        return
    version = landlock.get_version()
    yield f"Landlock version {version}: a connector reads its environment, its own folder and the folders of its YAML, and connects to the load's proxy alone"
    if version < landlock.SIGNALS_VERSION:
        yield f"not confined below Landlock version {landlock.SIGNALS_VERSION}: a connector may send signals to processes of the same user"
    yield "not confined: what a connector sends to public addresses, and the names and sizes of the machine's processes"
