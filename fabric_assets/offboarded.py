"""A tenant's name -> whether it has been offboarded, or is being so: then it takes no work.

The journal and the certificate themselves say it. There is no third mark that could disagree with them, and to take a tenant on anew one moves its
certificate away, which nobody does by accident.
"""

from pathlib import Path

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError

REMEDY = "remove its YAML and reload the code location; to take the tenant on anew, move {certificate} (and the .md beside it) out of that folder first"
_UNFINISHED = "call `fabric offboard {tenant} --yes` again, which goes on where it ended; then remove its YAML"


def find_offboarding(tenant: str, data_dir: Path) -> tuple[str, str] | None:
    """What became of a tenant and what to do about it, as message and remedy; None where it was never offboarded."""
    if naming.offboarding_journal(data_dir, tenant).exists():
        return "is being offboarded, and takes no work", _UNFINISHED.format(tenant=tenant)
    if (certificate := naming.offboarding_certificate(data_dir, tenant)).exists():
        return "was offboarded, and takes no work", REMEDY.format(certificate=certificate)
    return None


def refuse_offboarded(tenant: str, data_dir: Path) -> None:
    """Let no work begin for a tenant that has gone.

    Raises:
        ConfigurationError: it was offboarded, or is being so.
    """
    if found := find_offboarding(tenant, data_dir):
        raise ConfigurationError(f"tenant {tenant} {found[0]}", remedy=found[1])
