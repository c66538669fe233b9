"""A tenant's name -> whether it was offboarded, or is being offboarded: then no work is done for it.

The journal and the certificate themselves are the mark, so no third mark can disagree with them. To take the tenant on again, one moves its certificate
away, which nobody does by accident.
"""

from pathlib import Path

from fabric_assets import naming
from fabric_assets.errors import ConfigurationError

REMEDY = "remove its YAML and reload the code location; to take the tenant on again, first move {certificate} and its .md out of that folder"
_UNFINISHED = "call `fabric offboard {tenant} --yes` again, which goes on where it ended; then remove its YAML"


def find_offboarding(tenant: str, data_dir: Path) -> tuple[str, str] | None:
    """Describe a tenant's offboarding and what to do about it, as message and remedy; None if there was no offboarding."""
    if naming.offboarding_journal(data_dir, tenant).exists():
        return "is being offboarded, and takes no work", _UNFINISHED.format(tenant=tenant)
    if (certificate := naming.offboarding_certificate(data_dir, tenant)).exists():
        return "was offboarded, and takes no work", REMEDY.format(certificate=certificate)
    return None


def refuse_offboarded(tenant: str, data_dir: Path) -> None:
    """Refuse work for an offboarded tenant.

    Raises:
        ConfigurationError: the tenant was offboarded, or is being offboarded.
    """
    if found := find_offboarding(tenant, data_dir):
        raise ConfigurationError(f"tenant {tenant} {found[0]}", remedy=found[1])
