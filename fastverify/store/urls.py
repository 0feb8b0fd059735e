"""From a URL to a store.

=============================================== =======================================================================
``redis://[user[:password]@]host[:port][/db]``   TCP
``rediss://...``                                 the same inside TLS; ``?ssl_ca_certs=/file`` and the like
``redis+sentinel://[...@]host,host/name[/db]``   the primary of that name, which the sentinels at these hosts watch;
                                                 user and password are the servers', ``?sentinel_username=`` and
                                                 ``&sentinel_password=`` those of the sentinels
``redis+cluster://[...@]host[:port],host``       a cluster, of which these are some nodes
``rediss+sentinel://...``, ``rediss+cluster://`` the same inside TLS
``unix://[user[:password]@]/path[?db=0]``        a Unix socket
``embedded:///directory``                        a server of our own (embedded.py); ``embedded://directory`` is relative
=============================================== =======================================================================

User, password and path are percent-decoded. Messages never quote a URL: there may be a password anywhere in it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from ..errors import ConfigError
from .driver import Store
from .embedded import Server
from .endpoint import Endpoint, Limits, Node

_FORMS = (
    "redis://host:6379/0, rediss://host:6379/0, redis+sentinel://host:26379,host:26379/name/0, "
    "redis+cluster://host:6379,host:6379, unix:///path/to/socket or embedded:///path/to/directory"
)
_OF_ONE_SERVER = {"redis", "rediss", "unix", "embedded"}
_OF_SEVERAL = {"redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
#: Query parameters and what may be said there; redis-py's names.
_TLS_PARAMETERS = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}
_SENTINEL_PARAMETERS = {"sentinel_username", "sentinel_password"}
_UNREADABLE = "the URL cannot be read; special characters of a password must be percent-encoded"
_SEVERAL = re.compile(r"(?P<scheme>[A-Za-z+]+)://(?:(?P<user>[^/?#]*)@)?(?P<hosts>[^/?#@]*)(?P<rest>.*)", re.DOTALL)
_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\[\]:]+))(?::(?P<port>[0-9]{1,5}))?")


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
    if not isinstance(url, str):
        raise ConfigError("store", f"must be a URL as a str: {_FORMS}")
    if url.partition("://")[0].lower() in _OF_SEVERAL:
        return Store(_several(url), bounds)
    parts = _split(url)
    if parts.scheme == "embedded":
        server = Server(_directory(parts), binary=binary)
        place = server.socket_path
        endpoint = Endpoint(f"embedded://{server.directory}", "unix", {"path": place}, seeds=(Node(place, 0),))
        return Store(endpoint, bounds, server)
    if parts.scheme == "unix":
        return Store(_unix(parts), bounds)
    return Store(_tcp(parts), bounds)


def _split(url: str) -> SplitResult:
    parts = _parsed(url)
    if parts is None:
        raise ConfigError("store", _UNREADABLE)
    if parts.scheme not in _OF_ONE_SERVER:
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
    query = _query(parts.scheme, parts.query, _TLS_PARAMETERS if tls else set())
    server, db = Node(unquote(parts.hostname), parts.port or 6379), _database(parts.path.strip("/"))
    settings = {
        **_credentials(parts.username, parts.password),
        **query,
        "host": server.host,
        "port": server.port,
        "db": db,
        "socket_keepalive": True,
    }
    return Endpoint(
        f"{parts.scheme}://{_shown_user(parts.username)}{server}/{db}",
        "tls" if tls else "tcp",
        settings,
        seeds=(server,),
    )


def _several(url: str) -> Endpoint:
    """What names several hosts, which urllib does not read."""
    found = _SEVERAL.fullmatch(url)
    if found is None:
        raise ConfigError("store", _UNREADABLE)
    scheme = found["scheme"].lower()
    topology = scheme.partition("+")[2]
    path, hash_sign, _ = found["rest"].partition("#")
    path, _, query_text = path.partition("?")
    if hash_sign:
        raise ConfigError("store", "the URL goes on after a '#'; in a password it must be percent-encoded, as %23")
    tls = scheme.startswith("rediss")
    allowed = (_TLS_PARAMETERS if tls else set()) | (_SENTINEL_PARAMETERS if topology == "sentinel" else set())
    query = _query(scheme, query_text, allowed)
    sentinel_credentials = _credentials(query.pop("sentinel_username", ""), query.pop("sentinel_password", ""))
    user, _, password = (found["user"] or "").partition(":")
    common = {**query, "socket_keepalive": True}
    settings = {**common, **_credentials(user, password)}
    seeds = tuple(_guide(scheme, text, 26379 if topology == "sentinel" else 6379) for text in found["hosts"].split(","))
    shown = f"{scheme}://{_shown_user(user)}{','.join(map(str, seeds))}"
    kind: Any = "tls" if tls else "tcp"
    if topology == "cluster":
        if path.strip("/"):
            raise ConfigError("store", f"{scheme}:// names hosts and nothing else: a cluster has one database")
        return Endpoint(shown, kind, settings, "cluster", seeds, guide_settings=settings)
    service, _, db = path.strip("/").partition("/")
    if not service:
        raise ConfigError("store", f"{scheme}:// lacks the name of the primary: {scheme}://host:26379/name/0")
    database = _database(db)
    settings["db"] = database
    return Endpoint(
        f"{shown}/{service}/{database}",
        kind,
        settings,
        "sentinel",
        seeds,
        service=unquote(service),
        guide_settings={**common, **sentinel_credentials},
    )


def _guide(scheme: str, text: str, default: int) -> Node:
    found = _HOST.fullmatch(text)
    if found is None:
        raise ConfigError(
            "store", f"{scheme}:// must name its hosts as host:port,host:port, an IPv6 address in brackets"
        )
    port = int(found["port"] or default)
    if not 0 < port < 65536:
        raise ConfigError("store", f"{scheme}:// names a port that there is not")
    return Node(found["ipv6"] or unquote(found["host"]), port, guide=True)


def _unix(parts: SplitResult) -> Endpoint:
    path = unquote(parts.path)
    if parts.netloc.rpartition("@")[2] or not path.strip("/"):
        raise ConfigError("store", "unix:// names no absolute path: unix:///run/redis/redis.sock")
    db = _database(_query("unix", parts.query, {"db"}).get("db", ""))
    settings = {**_credentials(parts.username, parts.password), "path": path, "db": db}
    return Endpoint(f"unix://{_shown_user(parts.username)}{path}?db={db}", "unix", settings, seeds=(Node(path, 0),))


def _credentials(user: str | None, password: str | None) -> dict[str, str | None]:
    return {"username": unquote(user) if user else None, "password": unquote(password) if password else None}


def _shown_user(user: str | None) -> str:
    return f"{user}@" if user else ""


def _query(scheme: str, text: str, allowed: set[str]) -> dict[str, Any]:
    query: dict[str, Any] = dict(parse_qsl(text, keep_blank_values=True))
    if not query.keys() <= allowed:
        what = f"only {', '.join(sorted(allowed))}" if allowed else "no parameters"
        raise ConfigError("store", f"{scheme}:// takes {what} after '?'; times and sizes are options of open_store")
    if "ssl_check_hostname" in query:
        query["ssl_check_hostname"] = _boolean("ssl_check_hostname", query["ssl_check_hostname"])
    return query


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ConfigError("store", "the database must be a number: redis://host:6379/0")
    return int(text or 0)


def _boolean(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ConfigError("store", f"{name} must be true or false")
    return text.lower() == "true"
