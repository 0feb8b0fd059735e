"""Which hosts are one site to a browser: by registrable domain, where the public-suffix list is installed."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable

_LOCAL = "localhost"


def one_site(a: str, b: str) -> bool | None:
    """Whether two hosts have one registrable domain; None: not to be told without the public-suffix list."""
    if a == b or (site := _site(a)) == (other := _site(b)):
        return True
    if _LOCAL in (site, other) or ":" in a + b:
        return False
    suffixes = public_suffixes()
    if suffixes is None:
        return True if a.endswith("." + b) or b.endswith("." + a) else None
    return suffixes(a) is not None and suffixes(a) == suffixes(b)


def _site(host: str) -> str:
    """The host; every ``localhost*`` and IPv4 address, and the IPv6 loopback, is one development machine."""
    if host.startswith(_LOCAL):
        return _LOCAL
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    return _LOCAL if address.version == 4 or address.is_loopback else host


def is_local(host: str) -> bool:
    """Whether a host is the development machine."""
    return _site(host) == _LOCAL


@functools.cache
def public_suffixes() -> Callable[[str], str | None] | None:
    """Host -> registrable domain, by the public-suffix list with its private section; None: not installed."""
    try:
        from publicsuffixlist import PublicSuffixList
    except ImportError:
        return None
    registrable: Callable[[str], str | None] = PublicSuffixList().privatesuffix
    return registrable


def domains_above(host: str) -> list[str | None]:
    """The host and the domains above it, without the last label alone; none for a development machine."""
    labels = host.split(".")
    return [] if is_local(host) or ":" in host else [".".join(labels[n:]) for n in range(len(labels) - 1)]
