"""Every private part of a library that the platform uses, and the library's verified versions: the lists to check at an upgrade (ADR 0039).

A part counts as private if its name begins with an underscore, or if the library does not document it. So do parts that the platform replaces, and the
library's own tables that SQL reads or writes.
"""

import logging
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version

from fabric_assets.private_parts_list import PARTS

_log = logging.getLogger(__name__)

# The beginnings of verified versions. Add one once the parts below were checked in it and their tests have passed.
VERIFIED: dict[str, tuple[str, ...]] = {
    "dagster": ("1.13.",),
    "dbt-adapters": ("1.16.", "1.17.", "1.18.", "1.19.", "1.20.", "1.21.", "1.22.", "1.23.", "1.24."),
    "dbt-common": ("1.3",),
    "dbt-core": ("1.11.", "1.12."),
    "dbt-duckdb": ("1.10.", "1.11."),
    "dlt": ("1.30.", "1.31."),
    "jinja2": ("3.1.",),
    "pymysql": ("1.2.",),
    "pyyaml": ("6.0.",),
    "sqlalchemy": ("2.0.",),
    "urllib3": ("2.",),
}


@lru_cache
def is_verified(library: str) -> bool:
    """Whether the installed version is one that the private parts were verified against. If not, it warns once in a process."""
    installed = get_version(library)
    if installed is None or installed.startswith(VERIFIED[library]):
        return True
    ways = "; ".join(part.otherwise for part in PARTS if part.distribution == library and part.otherwise) or "report what does not work"
    known = ", ".join(f"{each}x" for each in VERIFIED[library])
    _log.warning("%s %s is not among the versions that ETL Fabric was verified against (%s): %s", library, installed, known, ways)
    return False


def get_version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
