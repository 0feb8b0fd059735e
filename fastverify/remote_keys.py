"""RemoteKeySet: the keys behind a JWKS URL, kept current in the background.

Theory of operation
-------------------
One thread fetches: at the start; when three quarters of what ``Cache-Control: max-age`` grants are over; and when a
verifier has seen a kid that it does not know. Between two fetches there are at least ``cool_down`` seconds, or tokens
with made-up kids would be a way to have this process flood the issuer. A fetch that fails changes nothing, and is tried
again after a second, then two, and so on up to a minute: keys that were good a moment ago are better than none.

What is fetched replaces the keys of every attached verifier in one step. Verifying never waits for a fetch: a token of
a key that is not known yet is refused, and the key is there a moment later. An issuer that publishes its keys some time
before it signs with them, as all should, is never seen in that state.

The URL decides who may sign, so it is https, unless its host is this machine; a redirect is a failure, and the standard
library's client is used because it reads no proxy settings from the environment.
"""

from __future__ import annotations

import http.client
import logging
import os
import re
import ssl
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from urllib.parse import urlsplit

from ._core import Key, Verifier
from .errors import ConfigError, StoreUnavailable
from .keys import KeySet

_log = logging.getLogger("fastverify.keys")

#: A JWK set of a hundred RSA keys has 60 kB.
_MAX_BYTES = 1 << 20
#: Seconds for which a set counts as fresh where the issuer does not say, and at most.
_DEFAULT_AGE, _LONGEST_AGE = 3_600, 86_400
#: Seconds between attempts while they fail: doubled from the first to the second.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_MAX_AGE = re.compile(r"(?:^|[\s,])max-age\s*=\s*\"?(\d{1,9})", re.IGNORECASE)
_LOCAL = ("localhost", "127.0.0.1", "::1")


class RemoteKeySet:
    """The keys behind a JWKS URL. Give it to a ``Verifier``, or to ``ForeignIssuer``, in the place of a ``KeySet``.

    Iterating gives the keys of this moment. It is a context manager; its thread ends with ``close``, or with it.

    Args:
        url: of the JWK set; https, or http of this machine.
        default_alg: the algorithm of members that do not name theirs.
        wait: seconds to wait for the first set; 0: return at once, and verifiers raise StoreUnavailable until then.
        timeout: seconds that one fetch may take.
        cool_down: seconds that pass at least between two fetches.
        context: of TLS; None: the system's authorities, as ``ssl.create_default_context`` has them.

    Raises:
        ConfigError: the URL cannot be used.
        StoreUnavailable: there is no usable set in time.
    """

    def __init__(
        self,
        url: str,
        *,
        default_alg: str | None = None,
        wait: float = 10.0,
        timeout: float = 5.0,
        cool_down: float = 10.0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self._source = _Source(url, default_alg, timeout, context)
        self._cool_down = cool_down
        self._keys = KeySet()
        self._closed = False
        self._loaded = threading.Event()
        self._lock = threading.Lock()
        self._verifiers: weakref.WeakSet[Verifier] = weakref.WeakSet()
        self._fetched_at = float("-inf")
        self._begin()
        os.register_at_fork(after_in_child=_Restart(self))
        if wait and not self._loaded.wait(wait):
            self.close()
            raise StoreUnavailable(f"the keys of {self._source.url} are not there yet")

    @property
    def keys(self) -> KeySet:
        """The keys of this moment."""
        return self._keys

    @property
    def ready(self) -> bool:
        """Whether a set has been fetched."""
        return self._loaded.is_set()

    def attach(self, verifier: Verifier) -> None:
        """Replace a verifier's keys from now on; ``Verifier`` does it by itself."""
        with self._lock:
            self._verifiers.add(verifier)
            verifier.replace_keys(self._keys)

    def missed(self) -> None:
        """A token names a key that is not among these: fetch, unless that was done a moment ago. Does not wait.

        Raises:
            StoreUnavailable: no set has been fetched yet, so that nothing can be said of the token.
        """
        if time.monotonic() - self._fetched_at >= self._cool_down:
            self._wake.put(True)
        if not self._loaded.is_set():
            raise StoreUnavailable("the keys are not loaded yet")

    def close(self) -> None:
        """Fetch no more; the keys that there are stay."""
        self._closed = True
        self._wake.put(False)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __enter__(self) -> RemoteKeySet:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_wake"):  # a URL that was refused comes to no thread
            self.close()

    def __repr__(self) -> str:
        return f"<RemoteKeySet {self._source.url}: {self._keys!r}>"

    def _begin(self) -> None:
        """Start the thread; also in a forked child, where there is none."""
        # The collector may come to ``__del__`` anywhere, under any lock: a SimpleQueue may be put into even there.
        self._wake: SimpleQueue[bool] = SimpleQueue()
        args = weakref.ref(self), self._wake
        threading.Thread(target=_keep_current, args=args, name="fastverify-jwks", daemon=True).start()

    def _restart(self) -> None:
        if not self._closed:
            self._lock = threading.Lock()
            self._begin()

    def _fetch(self) -> float | None:
        """Fetch once; seconds until the next time, or None if it failed."""
        self._fetched_at = time.monotonic()
        try:
            keys, age = self._source.fetch()
        except (OSError, http.client.HTTPException, ConfigError, ValueError) as error:
            _log.warning("the keys of %s cannot be fetched: %s", self._source.url, error)
            return None
        with self._lock:
            self._keys = keys
            for verifier in self._verifiers:
                verifier.replace_keys(keys)
        self._loaded.set()
        return max(0.75 * min(age, _LONGEST_AGE), self._cool_down)


class _Restart:
    """Called in a forked child; holds nothing that has gone."""

    def __init__(self, keys: RemoteKeySet) -> None:
        self._keys = weakref.ref(keys)

    def __call__(self) -> None:
        keys = self._keys()
        if keys is not None:
            keys._restart()


def _keep_current(ref: weakref.ref[RemoteKeySet], wake: SimpleQueue[bool]) -> None:
    """The thread: it holds the set only while it fetches, so that one nobody uses any more can go.

    ``wake``: True to fetch now, False to end.
    """
    pause = _FIRST_PAUSE
    while True:
        keys = ref()
        if keys is None or keys._closed:
            return
        due = keys._fetch()
        del keys
        if due is None:
            due, pause = pause, min(2 * pause, _LONGEST_PAUSE)
        else:
            pause = _FIRST_PAUSE
        with suppress(Empty):
            if not wake.get(timeout=due):
                return
        while not wake.empty():  # asked for while it was being done, or several times
            if not wake.get():
                return


class _Source:
    """Where the set is, and how it is asked for."""

    def __init__(self, url: str, default_alg: str | None, timeout: float, context: ssl.SSLContext | None) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except (ValueError, AttributeError, TypeError):
            raise ConfigError("url", "is not a URL") from None
        if parts.scheme not in ("https", "http") or not host or "@" in parts.netloc:
            raise ConfigError("url", "must be https://host/path, with no user and no password")
        if parts.scheme == "http" and host not in _LOCAL:
            raise ConfigError("url", "must be https: whoever can change the answer decides who may sign")
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not self._path.isascii() or any(c <= " " for c in self._path):
            raise ConfigError("url", "must be ASCII without blanks")
        #: What is shown of it: a query may hold a secret.
        self.url = url.partition("?")[0]
        self._host, self._port, self._timeout, self._default_alg = host, port, timeout, default_alg
        self._context = (context or ssl.create_default_context()) if parts.scheme == "https" else None

    def fetch(self) -> tuple[KeySet, float]:
        """The set, and for how many seconds it counts as fresh.

        Raises:
            OSError, HTTPException, ConfigError, ValueError: there is no answer in time, or none that can be used.
        """
        deadline = time.monotonic() + self._timeout
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            if self._context is None
            else http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout, context=self._context)
        )
        try:
            connection.request("GET", self._path, headers={"Accept": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise ValueError(f"it answers {response.status}")
            body = b""
            while part := response.read1(65_536):
                body += part
                if len(body) > _MAX_BYTES:
                    raise ValueError("it answers with more than 1 MiB")
                if time.monotonic() > deadline:
                    raise TimeoutError("it answers too slowly")
            if response.length:
                raise ValueError("its answer is cut short")
            keys = KeySet.from_jwks(body, default_alg=self._default_alg)
        finally:
            connection.close()
        if any(key.algorithm.startswith("HS") for key in keys):
            raise ValueError("it publishes a shared secret")
        age = _MAX_AGE.search(response.headers.get("cache-control", ""))
        return keys, float(age[1]) if age else _DEFAULT_AGE
