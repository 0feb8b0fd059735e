"""From a URL to a store.

===========================================  ==========================================================
``redis://[user[:password]@]host[:port][/db]``   TCP
``rediss://...``                                 the same inside TLS; ``?ssl_ca_certs=/file`` and the like
``unix://[user[:password]@]/path[?db=0]``        a Unix socket
``embedded:///directory``                        a server of our own (embedded.py); ``embedded://directory`` is relative
===========================================  ==========================================================

User, password and path are percent-decoded. Messages never quote a URL: there may be a password anywhere in it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..errors import ConfigError
from .driver import Endpoint, Limits, Store
from .embedded import Server

_FORMS = "redis://host:6379/0, rediss://host:6379/0, unix:///path/to/socket or embedded:///path/to/directory"
_LATER = {"redis+sentinel", "redis+cluster"}
#: Query parameters and what may be said there; redis-py's names.
_TLS_PARAMETERS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}


def open_store(url: str, *, binary: str | None = None, **limits: Any) -> Store:
    """Make a store of a URL. No I/O happens here; ``Store.start`` does the first.

    Args:
        url: See the module.
        binary: The server program of an embedded store; None searches for one.
        **limits: Fields of ``Limits``: ``connections``, ``acquire``, ``connect``, ``command``, ``total``.

    Raises:
        ConfigError: the URL cannot be used; the message says what can, and does not quote it.
    """
    bounds = Limits(**limits)
    parts = _split(url)
    if parts.scheme == "embedded":
        server = Server(_directory(parts), binary=binary)
        endpoint = Endpoint(f"embedded://{server.directory}", "unix", {"path": server.socket_path})
        return Store(endpoint, bounds, server)
    if parts.scheme == "unix":
        return Store(_unix(parts), bounds)
    return Store(_tcp(parts), bounds)


def _split(url: str) -> SplitResult:
    if not isinstance(url, str):
        raise ConfigError("store", f"must be a URL as a str: {_FORMS}")
    parts = _parsed(url)
    if parts is None:
        raise ConfigError("store", "the URL cannot be read; special characters of a password must be percent-encoded")
    if parts.scheme in _LATER:
        raise ConfigError("store", f"{parts.scheme}:// is not supported yet; use {_FORMS}")
    if parts.scheme not in ("redis", "rediss", "unix", "embedded"):
        raise ConfigError("store", f"must be a URL of one of these forms: {_FORMS}")
    if parts.fragment:
        raise ConfigError("store", "the URL goes on after a '#'; in a password it must be percent-encoded, as %23")
    return parts


def _parsed(url: str) -> SplitResult | None:
    with suppress(ValueError):  # not chained: it quotes what it could not read
        parts = urlsplit(url)
        _ = parts.port  # parsed when it is looked at
        return parts
    return None


def _directory(parts: SplitResult) -> Path:
    path = unquote(parts.netloc + parts.path)
    if not path or parts.query or "@" in parts.netloc:
        raise ConfigError("store", "embedded:// names a directory and nothing else: embedded:///var/lib/app/sessions")
    return Path(path)


def _tcp(parts: SplitResult) -> Endpoint:
    if not parts.hostname:
        raise ConfigError("store", f"{parts.scheme}:// names no host")
    tls = parts.scheme == "rediss"
    query = _query(parts, _TLS_PARAMETERS if tls else set())
    if "ssl_check_hostname" in query:
        query["ssl_check_hostname"] = _boolean("ssl_check_hostname", query["ssl_check_hostname"])
    host, port, db = unquote(parts.hostname), parts.port or 6379, _database(parts.path.strip("/"))
    settings = {**_credentials(parts), **query, "host": host, "port": port, "db": db, "socket_keepalive": True}
    shown = f"[{host}]" if ":" in host else host
    return Endpoint(f"{parts.scheme}://{_shown_user(parts)}{shown}:{port}/{db}", "tls" if tls else "tcp", settings)


def _unix(parts: SplitResult) -> Endpoint:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or not path.strip("/"):
        raise ConfigError("store", "unix:// names no absolute path: unix:///run/redis/redis.sock")
    db = _database(_query(parts, {"db"}).get("db", ""))
    return Endpoint(
        f"unix://{_shown_user(parts)}{path}?db={db}", "unix", {**_credentials(parts), "path": path, "db": db}
    )


def _credentials(parts: SplitResult) -> dict[str, str | None]:
    return {
        "username": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
    }


def _shown_user(parts: SplitResult) -> str:
    return f"{parts.username}@" if parts.username else ""


def _query(parts: SplitResult, allowed: set[str]) -> dict[str, Any]:
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not query.keys() <= allowed:
        what = f"only {', '.join(sorted(allowed))}" if allowed else "no parameters"
        raise ConfigError(
            "store", f"{parts.scheme}:// takes {what} after '?'; times and sizes are options of open_store"
        )
    return query


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigError("store", "the database must be a number: redis://host:6379/0")
    return int(text or 0)


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError("store", f"{name} must be true or false")
    return text.lower() == "true"
