"""Where a webhook may be sent to: not into the operator's own network, whatever a name resolves to. Pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

#: Prefixes whose last 32 bits are an IPv4 address that the packet ends at: NAT64 (RFC 6052), IPv4-translated
#: (RFC 2765), and the old IPv4-compatible ones (RFC 4291, 2.5.5.1).
_LAST_BITS = tuple(IPv6Network(net) for net in ("64:ff9b::/96", "::ffff:0:0:0/96", "::/96"))
#: NAT64 of a network's own (RFC 8215), where the IPv4 address may be anywhere; and addresses of a site, which are
#: deprecated and may still be in use (RFC 3879).
_REFUSED = tuple(IPv6Network(net) for net in ("64:ff9b:1::/48", "fec0::/10"))

#: Reserved for protocols (RFC 6890), which Python's own table knows in part, by its version: a cloud has its metadata
#: there. And Azure's server for its virtual machines, an address of the internet that leads no farther than their host.
_REFUSED_V4 = tuple(IPv4Network(net) for net in ("192.0.0.0/24", "168.63.129.16/32"))


def is_public(address: str) -> bool:
    """Return whether an address, as a socket has it, is one of the internet's, however it is wrapped up."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return _is_public_v4(found) if isinstance(found, IPv4Address) else _is_public_v6(found)


def _is_public_v4(address: IPv4Address) -> bool:
    if any(address in network for network in _REFUSED_V4):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def _is_public_v6(address: IPv6Address) -> bool:
    inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if any(address in network for network in _LAST_BITS):
        inner.append(IPv4Address(int(address) & 0xFFFFFFFF))
    wrapped = [one for one in inner if one is not None]
    if wrapped:
        return all(_is_public_v4(one) for one in wrapped)
    if any(address in network for network in _REFUSED):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_link_local)
