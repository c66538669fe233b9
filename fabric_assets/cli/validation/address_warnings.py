"""Addresses of APIs to which no load will connect -> warnings of `fabric validate`, each with its line and its remedy.

Only certain cases are reported: addresses written as numbers, and names of this machine itself. No name is looked up.
"""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from urllib.parse import urlsplit

from fabric_assets.config.base import Path, SecretRef
from fabric_assets.config.loader import LoadedTenant
from fabric_assets.config.problems import Problem
from fabric_assets.config.sources.models import RestApiSource
from fabric_assets.config.sources.rest import OAuth2ClientCredentials
from fabric_assets.errors import FabricError
from fabric_assets.security.addresses import find_objection
from fabric_assets.security.secrets import resolve_secret
from fabric_assets.settings import Settings

_OWN_NAMES = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")


def find_address_warnings(loaded: LoadedTenant, settings: Settings) -> Iterator[Problem]:
    """Warn of the addresses of each `rest_api` source."""
    for name, source in loaded.config.sources.items():
        if not isinstance(source, RestApiSource):
            continue
        urls: list[tuple[Path, str | SecretRef]] = [(("base_url",), source.base_url)]
        if isinstance(source.auth, OAuth2ClientCredentials):
            urls.append((("auth", "token_url"), source.auth.token_url))
        for path, written in urls:
            host = _get_host(written, loaded.config.tenant, settings)
            address = host and _find_address(host)
            if not address or not (kind := find_objection(address, allow_private_network=source.allow_private_network)):
                continue
            if find_objection(address, allow_private_network=True):
                remedy = "no load may connect there; name a host of the source's own"
            else:
                remedy = "if the API is in your own network, set allow_private_network: true"
            yield loaded.make_problem(("sources", name, *path), f"warning: the load does not connect to {host}: it is {kind} address; {remedy}")


def _get_host(written: str | SecretRef, tenant: str, settings: Settings) -> str | None:
    if not isinstance(written, str):
        try:
            written = resolve_secret(written, tenant=tenant, settings=settings, hidden=False)
        except FabricError:
            # The secret may be on another machine.
            return None
    try:
        return urlsplit(written.strip()).hostname
    except ValueError:
        return None


def _find_address(host: str) -> str | None:
    """Find the address of a host; None for a name that must be looked up."""
    if host in _OWN_NAMES or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        # 127.1 and 0x7f000001, as a connection would read them.
        return str(IPv4Address(socket.inet_aton(host)))
    except (OSError, ValueError, UnicodeError):
        return None
