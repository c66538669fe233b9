"""A Postgres login -> a login with a value for all that libpq would otherwise look for in PG* variables, ~/.pgpass, a service file or ~/.postgresql.

What a login leaves out must stay out: the process serves many tenants, and its environment may hold another tenant's login or the operator's.

libpq accepts an empty value: it then ignores the variable, and behaves as if nothing were set.
"""

import os
from collections.abc import Mapping
from typing import Any

from fabric_assets.errors import ConfigurationError

# A path that cannot exist, where an empty one would mean the file in the home folder.
_NOWHERE = f"{os.devnull}/none"
_NEUTRAL = {
    "password": "",
    "dbname": "",
    "port": 5432,
    "hostaddr": "",
    "options": "",
    "passfile": _NOWHERE,
    "sslcert": _NOWHERE,
    "sslkey": _NOWHERE,
    "gssencmode": "disable",
}
# They lead to logins in files of this machine.
_FOREIGN = ("passfile", "service", "servicefile")


def complete_login(given: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a login what it leaves out.

    Args:
        given: libpq's parameters, at least host and user.
    """
    return {**_NEUTRAL, **given}


def build_conninfo(parameters: Mapping[str, Any]) -> str:
    """Write parameters as libpq's connection string."""
    return " ".join(f"{key}={_quote(str(value))}" for key, value in parameters.items())


def refuse_foreign_logins(query: Mapping[str, Any], where: str) -> None:
    """Refuse a url that takes its login from a file.

    Raises:
        ConfigurationError: a url's query names a login in a file of this machine, which is not the tenant's.
    """
    for name in _FOREIGN:
        if name in query:
            raise ConfigurationError(
                f"{where} has the parameter {name}, which takes a login from a file of this machine", remedy="put user and password into the url"
            )


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
