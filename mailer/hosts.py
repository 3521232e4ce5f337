"""What a host is counted by, wherever hosts are counted. Called by `intake` and `listener`."""

import ipaddress


def network(host: str) -> str:
    """The key of a host: its IPv4 address, or its IPv6 /64, as one machine can use any address in that."""
    if ":" not in host:
        return host
    address = ipaddress.IPv6Address(host)
    return str(address.ipv4_mapped or int(address) >> 64)
