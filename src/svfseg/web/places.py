"""Places that many share: how many are taken, and how many of them by one address."""

import ipaddress
from collections import Counter

# The rest of an IPv6 address is chosen by whoever has it.
IPV6_NETWORK = 64


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine's loopback."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def neighbourhood(host: str) -> str:
    """Give what addresses of one user have in common: IPv4's whole address, IPv6's network.

    Args:
        host: an address; another text is given back as it is.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address.is_loopback:
        return host
    return str(ipaddress.ip_network((address, IPV6_NETWORK), strict=False).network_address)


def share_of(most: int, host: str) -> int:
    """Give the number of places that one address may take.

    Other machines get half, so that one of them leaves some to all others; this machine gets all,
    as a proxy on it speaks for many.

    Args:
        most: number of places.
        host: the address.
    """
    return most if is_loopback(host) else max(1, most // 2)


class Places:
    """A number of places, of which one address may take its share: see `share_of`.

    Args:
        most: number of places.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        """Give the number of places that are taken."""
        return self._taken.total()

    def is_open(self, host: str) -> bool:
        """Say whether an address may take one more place."""
        return len(self) < self.most and self._taken[host] < share_of(self.most, host)

    def take(self, host: str) -> None:
        """Take a place."""
        self._taken[host] += 1

    def leave(self, host: str) -> None:
        """Give a place back."""
        self._taken[host] -= 1
        if not self._taken[host]:
            del self._taken[host]
