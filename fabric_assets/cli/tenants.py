"""TENANT arguments of a command -> names of tenants, healthy or broken."""

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from fabric_assets.config.loader import Fleet
from fabric_assets.errors import ConfigurationError
from fabric_assets.suggestions import suggest


def get_tenants(fleet: Fleet, patterns: Iterable[str] | None, all_: bool) -> tuple[str, ...]:
    """Resolve names and globs.

    Args:
        all_: choose every tenant, and ignore the patterns.

    Raises:
        ConfigurationError: no pattern is given, or one matches no tenant.
    """
    known = sorted({*fleet.tenants, *fleet.broken})
    if all_:
        return tuple(known)
    wanted = list(patterns or ())
    if not wanted:
        raise ConfigurationError("name at least one tenant, or use --all", remedy=f"tenants: {', '.join(known[:20]) or 'none'}")
    chosen: set[str] = set()
    for pattern in wanted:
        found = [name for name in known if name == pattern or fnmatchcase(name, pattern)]
        if not found:
            raise ConfigurationError(
                f"'{pattern}' is no tenant here{suggest(pattern, known)}", remedy="see `fabric list tenants`, and FABRIC_TENANTS if it is set"
            )
        chosen.update(found)
    return tuple(name for name in known if name in chosen)


def narrow(fleet: Fleet, names: Iterable[str]) -> Fleet:
    """Return the fleet with only these tenants."""
    kept = set(names)
    return replace(
        fleet,
        tenants={name: loaded for name, loaded in fleet.tenants.items() if name in kept},
        broken={name: problems for name, problems in fleet.broken.items() if name in kept},
    )
