"""What device a request comes from, as far as it says: its user agent and its address. Pure."""

from __future__ import annotations

from ipaddress import ip_address

from .config import RequestHeaders

#: Characters of a user agent that are kept. The longest honest ones have some hundreds.
_MOST = 512


def device_from_request(headers: RequestHeaders, peer: str | None, trusted_proxies: int) -> dict[str, str]:
    """The ``device`` of a session that starts with this request: ``user_agent`` and ``address``, those that are known.

    Args:
        headers: of the request. What they say is the client's word, but for the proxies' part of ``x-forwarded-for``.
        peer: the address at the other end of the connection.
        trusted_proxies: how many proxies of yours the request has come through. Each adds the address that it sees to
            the end of ``x-forwarded-for``, so the client's is so many places from there; what stands before it is made
            up. With 0 the header is not looked at.
    """
    device = {}
    if user_agent := headers.get(b"user-agent"):
        device["user_agent"] = user_agent[:_MOST]
    if address := _address(_forwarded(headers, trusted_proxies) or peer or ""):
        device["address"] = address
    return device


def _forwarded(headers: RequestHeaders, trusted_proxies: int) -> str | None:
    """The address that the outermost trusted proxy saw; None: the request has not come through all of them."""
    if not trusted_proxies:
        return None
    addresses = (headers.get(b"x-forwarded-for") or "").split(",")
    return addresses[-trusted_proxies].strip() if len(addresses) >= trusted_proxies else None


def _address(text: str) -> str | None:
    """The address in canonical form, without a port; None: it is none, such as a socket's path."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None
