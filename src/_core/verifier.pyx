# The Verifier: keys and policy prepared once, then one short way through all of the above for each token.

import os
import threading
from collections import namedtuple

from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport PyObject
from libc.string cimport memcpy

from fastverify.errors import ConfigError, InvalidToken, RevokedToken, StoreUnavailable

cdef extern from *:
    """
    #include <time.h>

    #ifdef CLOCK_REALTIME_COARSE
    #define FV_WALL CLOCK_REALTIME_COARSE
    #else
    #define FV_WALL CLOCK_REALTIME
    #endif
    /* The clock of time.monotonic(). */
    #if defined(CLOCK_MONOTONIC_COARSE)
    #define FV_MONOTONIC CLOCK_MONOTONIC_COARSE
    #elif defined(__APPLE__)
    #define FV_MONOTONIC CLOCK_UPTIME_RAW
    #else
    #define FV_MONOTONIC CLOCK_MONOTONIC
    #endif

    /* A few nanoseconds each; behind the fine clocks by a timer tick at most. Should one fail, every token has expired
       and all that is known is stale. */
    static inline long long fv_seconds(void) {
        struct timespec t;
        return clock_gettime(FV_WALL, &t) ? INT64_MAX : t.tv_sec;
    }

    static inline double fv_monotonic(void) {
        struct timespec t;
        return clock_gettime(FV_MONOTONIC, &t) ? 1e300 : (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }
    """
    long long fv_seconds() noexcept nogil
    double fv_monotonic() noexcept nogil

CacheInfo = namedtuple("CacheInfo", ("hits", "misses", "size", "capacity", "bytes"), module="fastverify._core")
CacheInfo.__doc__ = "What a verifier's cache did and holds: hits, misses, entries now and at most, and their bytes."

cdef tuple REVOKED_KINDS = (None, "session", "token", "key", "tenant", "all")

cdef enum Release:
    HOLD = 0
    RELEASE = 1
    AUTO = 2

# release_gil="auto" asks which thread this is: see Verifier.
cdef unsigned long main_thread = threading.main_thread().ident


def _after_fork():
    global main_thread
    main_thread = PyThread_get_thread_ident()


os.register_at_fork(after_in_child=_after_fork)


@cython.final
cdef class Verifier:
    """Verifies tokens under a set of keys and one policy. Never does I/O and may be shared by all threads.

    Args:
        keys: any iterable of `Key`, a `KeySet` for instance. No two may share both algorithm and key id.
        issuer: the only ``iss`` that is accepted, compared exactly; None accepts any.
        audience: one or several, of which ``aud`` must name one; None leaves ``aud`` to the caller.
        typ: the ``typ`` of the header that is accepted, or a tuple of them; media-type rule (RFC 7515 section 4.1.9):
            case does not matter, nor whether "application/" stands before it.
        leeway: seconds, 0 to 60, granted to ``exp``. ``nbf`` and ``iat`` are granted 5, or this if it is more.
        cache_size: how many verified tokens are remembered; 0 for none.
        cache_bytes: how much memory they may take.
        max_token_bytes: longer tokens are refused unread; at most 16384.
        release_gil: whether asymmetric signature checks run without the GIL. "auto": in every thread but the main one,
            and in `verify_many`. The main thread usually runs an event loop, which would wait out the switch interval
            (5 ms) for the GIL whenever another thread computes; a pool thread is there so that others can go on.
        fast_crypto: whether faster checks through libcrypto's lower-level functions may be used where there are any.
        revocations: the table that is consulted at every call.

    Raises:
        ConfigError: naming the parameter that cannot work.
    """

    cdef KeyRing ring
    cdef unsigned long long generation  # of the ring
    cdef TokenCache cache
    cdef RevocationTable revocations
    cdef bytes issuer
    cdef tuple audiences
    cdef tuple types
    cdef int leeway
    cdef size_t limit
    cdef Release release

    def __cinit__(self, keys, *, issuer, audience=None, typ="JWT", leeway=0, cache_size=65536, cache_bytes=134217728,
                  max_token_bytes=DEFAULT_MAX_TOKEN, release_gil="auto", fast_crypto=True, revocations=None):
        self.ring = KeyRing(distinct_keys(keys, ()))
        self.issuer = None if issuer is None else setting_text("issuer", issuer)
        self.audiences = None if audience is None else setting_texts("audience", audience)
        self.types = tuple([setting_type(text) for text in setting_texts("typ", typ)])
        self.leeway = setting_number("leeway", leeway, 0, MAX_LEEWAY)
        self.limit = setting_number("max_token_bytes", max_token_bytes, 1, MAX_TOKEN)
        self.cache = TokenCache(setting_number("cache_size", cache_size, 0, 1 << 26),
                                setting_number("cache_bytes", cache_bytes, 0, 1 << 46))
        if release_gil not in ("auto", True, False):
            raise ConfigError("release_gil", 'must be "auto", True or False')
        self.release = AUTO if release_gil == "auto" else RELEASE if release_gil else HOLD
        if not isinstance(fast_crypto, bool):
            raise ConfigError("fast_crypto", "must be a bool")
        if revocations is not None and not isinstance(revocations, RevocationTable):
            raise ConfigError("revocations", "must be a RevocationTable")
        self.revocations = revocations

    def verify(self, token, *, now=None):
        """Verify one token, a str or bytes, and return its `Claims`.

        Args:
            token: a JWS in compact form (RFC 7515 section 7.1).
            now: seconds since 1970, in place of the clock.

        Raises:
            InvalidToken: one of its subclasses says why.
            StoreUnavailable: the revocations are too old to be trusted.
        """
        cdef long long at = fv_seconds() if now is None else instant(now)
        cdef const unsigned char *text
        cdef size_t size
        cdef PyObject *known
        if not text_of(token, &text, &size):
            raise refusal(NOT_ASCII, "token")
        known = self.cache.find(text, size)
        if known != NULL and self.still_holds(<Claims>known, at):
            self.cache.hits += 1
            return <Claims>known
        return self.cold(token, text, size, at, self.release)

    def verify_many(self, tokens, *, now=None) -> list:
        """Verify several tokens; `Claims`, or the `InvalidToken` that refused it, for each in the same order.

        Raises:
            StoreUnavailable: the revocations are too old to be trusted.
        """
        cdef long long at = fv_seconds() if now is None else instant(now)
        cdef Release release = RELEASE if self.release == AUTO else self.release
        cdef list results = []
        cdef const unsigned char *text
        cdef size_t size
        cdef PyObject *known
        for token in tokens:
            try:
                if not isinstance(token, (str, bytes)) or not text_of(token, &text, &size):
                    raise refusal(NOT_ASCII, "token")
                known = self.cache.find(text, size)
                if known != NULL and self.still_holds(<Claims>known, at):
                    self.cache.hits += 1
                    results.append(<Claims>known)
                else:
                    results.append(self.cold(token, text, size, at, release))
            except InvalidToken as error:
                results.append(error.with_traceback(None))
        return results

    def verify_jws(self, token) -> bytes:
        """Verify header and signature only (RFC 7515 section 5.2), and return the payload, whatever it is.

        ``typ``, claims and revocations are not looked at and nothing is cached.

        Raises:
            InvalidToken: one of its subclasses says why.
        """
        cdef Compact compact
        cdef KeyRing ring = self.ring
        cdef const unsigned char *text
        cdef size_t size
        cdef int code
        if not text_of(token, &text, &size):
            raise refusal(NOT_ASCII, "token")
        code = split(text, size, self.limit, &compact)
        if code != FINE:
            raise refusal(code, "token")
        ring.authenticate(&compact, self.types, False, self.releases(self.release))
        return compact.payload[:compact.payload_size]

    def replace_keys(self, keys) -> None:
        """Use another set of keys from now on, in one step. Cached tokens of all other keys count no more.

        Raises:
            ConfigError: two keys share algorithm and key id.
        """
        self.ring = KeyRing(distinct_keys(keys, self.ring.keys))
        self.generation += 1

    def cache_info(self):
        """What the cache did and holds, as a `CacheInfo`. Its bytes include what the entries keep alive."""
        cdef TokenCache cache = self.cache
        return CacheInfo(cache.hits, cache.misses, cache.size, cache.capacity, cache.bytes)

    def cache_clear(self) -> None:
        """Forget every cached token."""
        self.cache.clear()

    def __repr__(self):
        issuer = None if self.issuer is None else self.issuer.decode()
        return f"<Verifier of {self.ring.count} keys, issuer={issuer!r}>"

    cdef inline bint still_holds(self, Claims claims, long long at) except -1:
        """Read again all that may have changed since a cached token was verified; False if it must be verified anew."""
        if claims.generation != self.generation:
            if not self.ring.holds(claims.key):
                self.cache.drop(claims)
                return False
            claims.generation = self.generation
        if at >= claims.valid_until or at < claims.valid_from:
            claims.check_times(at)
        if self.revocations is not None:
            if claims.epoch != self.revocations.epoch:
                self.check_revoked(claims, at)
            if self.revocations.fresh_until != NEVER:
                self.check_fresh()
        return True

    cdef Claims cold(self, object token, const unsigned char *text, size_t size, long long at, Release release):
        """Verify a token that the cache does not know."""
        cdef Compact compact
        cdef unsigned long long generation = self.generation
        cdef KeyRing ring = self.ring
        cdef Claims claims
        cdef Slot *slot
        cdef int code
        self.cache.misses += 1
        code = split(text, size, self.limit, &compact)
        if code != FINE:
            raise refusal(code, "token")
        slot = ring.authenticate(&compact, self.types, True, self.releases(release))
        claims = Claims.__new__(Claims)
        claims.read(token, &compact)
        claims.key = <Key>slot.key
        claims.algorithm = claims.key.algorithm
        claims.key_id = claims.key.key_id
        claims.generation = generation
        claims.set_times(self.leeway)
        claims.check_times(at)
        claims.check_issuer(self.issuer)
        claims.match_audience(self.audiences)
        if self.revocations is not None:
            claims.read_handle()
            self.check_revoked(claims, at)
            if self.revocations.fresh_until != NEVER:
                self.check_fresh()
        self.cache.keep(claims, at)
        return claims

    cdef inline bint releases(self, Release release) noexcept:
        return release == RELEASE or release == AUTO and PyThread_get_thread_ident() != main_thread

    cdef int check_revoked(self, Claims claims, long long at) except -1:
        cdef RevocationTable table = self.revocations
        cdef unsigned long long epoch = table.epoch
        cdef int kind = table.find(
            claims.handle16 if claims.has_handle else NULL,
            claims.token_target() if table.counts[KIND_TOKEN] else NULL,
            claims.key.kid16 if claims.key.key_id is not None else NULL,
            claims.tenant_target() if table.counts[KIND_TENANT] else NULL,
            claims.iat,
            <unsigned int>min(at, <long long>0xFFFFFFFF),
        )
        if kind:
            raise RevokedToken("revoked", kind=REVOKED_KINDS[kind])
        claims.epoch = epoch
        return 0

    cdef int check_fresh(self) except -1:
        if not fv_monotonic() <= self.revocations.fresh_until:  # a NaN is stale
            if not self.revocations.allow_stale:
                raise StoreUnavailable("the revocations known here are too old to be trusted")
            self.revocations.stale_served += 1
        return 0


cdef double NEVER = float("inf")


def parse_unverified(token, *, max_token_bytes=DEFAULT_MAX_TOKEN):
    """Read a token that nobody has verified: strict syntax and types only, no key, no signature, no time, no issuer.

    Everything in the result may be a lie; ``algorithm`` and ``key_id`` are what the header says.

    Raises:
        InvalidToken: no verifier would accept it.
    """
    cdef Compact compact
    cdef Header header
    cdef Claims claims
    cdef const unsigned char *text
    cdef size_t size
    cdef int code
    if not text_of(token, &text, &size):
        raise refusal(NOT_ASCII, "token")
    code = split(text, size, setting_number("max_token_bytes", max_token_bytes, 1, MAX_TOKEN), &compact)
    if code != FINE:
        raise refusal(code, "token")
    code = read_header(compact.text, compact.header_size, &header)
    if code != FINE:
        raise header_refusal(code, &header)
    claims = Claims.__new__(Claims)
    claims.read(token, &compact)
    claims.algorithm = header.alg.bytes[:header.alg.size].decode()
    claims.key_id = header.kid.bytes[:header.kid.size].decode() if header.kid.size >= 0 else None
    return claims


cdef long long instant(now) except -1:
    """Whole seconds of a `now` that was given; comparing with integers, the fraction never matters."""
    cdef double seconds
    if isinstance(now, bool) or not isinstance(now, (int, float)):
        raise TypeError("now must be an int or float")
    try:
        seconds = now  # exact up to 2^53, which is as far as it may go
    except OverflowError:
        seconds = NEVER
    if not 0 <= seconds <= LAST_DATE:
        raise ValueError("now must be seconds since 1970")
    return <long long>seconds


# --- settings ---

cdef tuple distinct_keys(keys, tuple former):
    """The keys, each once. Where a key equals a former one, that one stays: prepared, and with its cached tokens."""
    cdef dict known = {key: key for key in former}
    cdef dict chosen = {}
    for key in keys:
        if not isinstance(key, Key):
            raise ConfigError("keys", f"must be Key objects, not {type(key).__name__}")
        name = (key.algorithm, key.key_id)
        if chosen.setdefault(name, key) != key:
            raise ConfigError("keys", f"two keys for {key.algorithm} have the key id {key.key_id!r}")
    return tuple([known.get(key, key) for key in chosen.values()])


cdef bytes setting_text(str name, value):
    if not isinstance(value, str) or not value:
        raise ConfigError(name, "must be a str, and not an empty one")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise ConfigError(name, "is not Unicode text") from None


cdef tuple setting_texts(str name, value):
    if isinstance(value, str):
        value = (value,)
    if not isinstance(value, (list, tuple, set, frozenset)) or not value:
        raise ConfigError(name, "must be a str, or a sequence of at least one")
    return tuple([setting_text(name, text) for text in value])


cdef bytes setting_type(bytes text):
    cdef unsigned char buffer[MAX_TYP]
    if len(text) > MAX_TYP:
        raise ConfigError("typ", f"must be at most {MAX_TYP} bytes")
    memcpy(buffer, <const char *>text, len(text))
    return buffer[:media_type(buffer, len(text))]


cdef object setting_number(str name, value, least, most):
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigError(name, f"must be an int from {least} to {most}")
    return value
