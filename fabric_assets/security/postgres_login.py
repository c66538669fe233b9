"""A Postgres login -> all that libpq would else look for elsewhere: in PG* variables, in ~/.pgpass, in a service file, in ~/.postgresql.

What is left out of a login must stay out. The process serves many tenants, and what its environment holds is another one's, or the operator's.
An empty value is a value for libpq: it keeps the variable out, and means what no value means.
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
    """Add what a login leaves out.

    Args:
        given: libpq's parameters, at least host and user.
    """
    return {**_NEUTRAL, **given}


def build_conninfo(parameters: Mapping[str, Any]) -> str:
    """Write parameters as libpq's connection string."""
    return " ".join(f"{key}={_quote(str(value))}" for key, value in parameters.items())


def refuse_foreign_logins(query: Mapping[str, Any], where: str) -> None:
    """Raises:
    ConfigurationError: a url's query names a login that lies on this machine, which is not the tenant's.
    """
    for name in _FOREIGN:
        if name in query:
            raise ConfigurationError(
                f"{where} has the parameter {name}, which takes a login from a file of this machine", remedy="put user and password into the url"
            )


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
