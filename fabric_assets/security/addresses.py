"""Which addresses a request on behalf of a tenant may go to.

Only the standard library is imported, because the supervisor of a connector imports this module.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

# Outside of the link-local networks, which are refused as a whole: AWS, GCP, Alibaba, Azure and Oracle.
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
_GLOBAL_6, _LOCAL_6 = IPv6Network("2000::/3"), IPv6Network("fc00::/7")
# The IPv4 address stands in the last 32 bits: mapped, translated (RFC 6052), and compatible as it once was.
_CARRIERS = tuple(map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "::/96")))


def find_objection(address: str, *, allow_private_network: bool = False) -> str | None:
    """Give the kind of network that an address must not be connected to for; None for an address that is allowed.

    Networks that are not for single hosts (multicast, reserved) are always refused, and so are the addresses at which clouds serve their machines'
    credentials.
    """
    found = _unwrap(ip_address(address))
    if found in _METADATA or found.is_link_local:
        return "a link-local or metadata"
    if found.is_loopback:
        return None if allow_private_network else "a loopback"
    odd = found not in _GLOBAL_6 and found not in _LOCAL_6 if isinstance(found, IPv6Address) else found.is_reserved or found.packed[0] == 0
    if found.is_multicast or odd:
        return "a multicast or reserved"
    return None if found.is_global or allow_private_network else "a private"


def _unwrap(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv6Address):
        address = IPv6Address(int(address))  # without the zone
        if address.sixtofour:
            return address.sixtofour
        if int(address) > 1 and any(address in carrier for carrier in _CARRIERS):
            return IPv4Address(address.packed[-4:])
    return address
