# The Verifier: keys and policy prepared once, then one short way through all of the above for each token.

import os
import threading
from collections import namedtuple

from cpython.pythread cimport PyThread_get_thread_ident
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.string cimport memcpy

from fastverify.errors import ConfigError, InvalidToken, RevokedToken, StoreUnavailable

cdef extern from *:
    """
    #include <time.h>

    /* The clock of time.monotonic(). */
    #if defined(CLOCK_MONOTONIC_COARSE)
    #define FV_MONOTONIC CLOCK_MONOTONIC_COARSE
    #elif defined(__APPLE__)
    #define FV_MONOTONIC CLOCK_UPTIME_RAW
    #else
    #define FV_MONOTONIC CLOCK_MONOTONIC
    #endif

    /* A few nanoseconds each; behind the fine clocks by a timer tick at most. Should one fail, every token has expired
       and all that is known is stale. time() is the second that the coarse clock is in, and cheaper to ask for. */
    static inline long long fv_seconds(void) {
        time_t now = time(NULL);
        return now < 0 ? INT64_MAX : now;
    }

    static inline double fv_monotonic(void) {
        struct timespec t;
        return clock_gettime(FV_MONOTONIC, &t) ? 1e300 : (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
    }
    """
    long long fv_seconds() noexcept nogil
    double fv_monotonic() noexcept nogil

CryptoInfo = namedtuple(
    "CryptoInfo", ("fast", "evp", "shadowed", "undecided", "contradicted", "tables"), module="fastverify._core"
)
CryptoInfo.__doc__ = """How a verifier has checked RSA and ECDSA signatures.

``fast``: on a fast path; ``evp``: through EVP; ``shadowed``: on a fast path and, for control, through EVP as well;
``undecided``: left to EVP by a fast path; ``contradicted``: accepted by a fast path and refused by EVP, which must be
0; ``tables``: of ES256 keys, at present."""
CacheInfo = namedtuple("CacheInfo", ("hits", "misses", "size", "capacity", "bytes"), module="fastverify._core")
CacheInfo.__doc__ = "What a verifier's cache did and holds: hits, misses, entries now and at most, and their bytes."

cdef enum:
    BATCH = 256  # tokens of verify_many that are checked at once
    VIEW_BYTES = 512  # about what a view keeps alive, such as a Session with its strings

# A token on its way.
cdef struct Pending:
    Compact compact
    Choice choice
    Member found[CLAIMS_NOTED]
    Loan *loan  # in a batch
    Py_ssize_t index  # in a batch
    int code  # a Refusal
    bint scanned  # whether the payload has to be a claims set
    bint authentic  # the signature has passed

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
    forked()


os.register_at_fork(after_in_child=_after_fork)


@cython.final
cdef class Verifier:
    """Verifies tokens under a set of keys and one policy. Never does I/O and may be shared by all threads.

    Args:
        keys: any iterable of `Key`, a `KeySet` for instance. No two may share both algorithm and key id. Of a
            `RemoteKeySet`, those that it has now, and whatever it fetches from then on.
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
        fast_crypto: whether RSA and ES256 signatures may be checked through libcrypto's lower-level functions where
            those serve (`openssl_info`), or only through EVP. `crypto_info` counts.
        fast_keys: how many ES256 keys, the busiest ones, may have a table of their own at a time: 150 KB each.
        revocations: the table that is consulted at every call.
        make_view: what `view` returns is this called with the `Claims`, kept beside them in the cache.

    Raises:
        ConfigError: naming the parameter that cannot work.
    """

    cdef KeyRing ring
    cdef unsigned long long generation  # of the ring
    cdef TokenCache cache
    cdef RevocationTable revocations
    cdef object make_view
    cdef object source  # whoever replaces the keys and is told of unknown ones; None for keys that stay
    cdef object __weakref__
    cdef bytes issuer
    cdef tuple audiences
    cdef tuple types
    cdef int leeway
    cdef size_t limit
    cdef Release release
    cdef bint fast
    cdef Py_ssize_t fast_keys
    cdef unsigned long long by_fast, by_evp, shadowed, undecided, contradicted

    def __cinit__(self, keys, *, issuer, audience=None, typ="JWT", leeway=0, cache_size=65536, cache_bytes=134217728,
                  max_token_bytes=DEFAULT_MAX_TOKEN, release_gil="auto", fast_crypto=True, fast_keys=8,
                  revocations=None, make_view=None):
        self.ring = KeyRing(distinct_keys(keys, ()))
        self.issuer = None if issuer is None else setting_text("issuer", issuer)
        self.audiences = None if audience is None else setting_texts("audience", audience)
        self.types = tuple([setting_type(text) for text in setting_texts("typ", typ)])
        self.leeway = setting_number("leeway", leeway, 0, MAX_LEEWAY)
        self.limit = setting_number("max_token_bytes", max_token_bytes, 1, MAX_TOKEN)
        self.cache = TokenCache(setting_number("cache_size", cache_size, 0, 1 << 26),
                                setting_number("cache_bytes", cache_bytes, 0, 1 << 46),
                                0 if make_view is None else VIEW_BYTES)
        if release_gil not in ("auto", True, False):
            raise ConfigError("release_gil", 'must be "auto", True or False')
        self.release = AUTO if release_gil == "auto" else RELEASE if release_gil else HOLD
        if not isinstance(fast_crypto, bool):
            raise ConfigError("fast_crypto", "must be a bool")
        self.fast = fast_crypto
        self.fast_keys = setting_number("fast_keys", fast_keys, 0, 1 << 16)
        if revocations is not None and not isinstance(revocations, RevocationTable):
            raise ConfigError("revocations", "must be a RevocationTable")
        self.revocations = revocations
        if make_view is not None and not callable(make_view):
            raise ConfigError("make_view", "must be callable")
        self.make_view = make_view
        self.source = keys if hasattr(keys, "attach") else None
        if self.source is not None:
            self.source.attach(self)

    def verify(self, token, *, now=None):
        """Verify one token, a str or bytes, and return its `Claims`.

        Args:
            token: a JWS in compact form (RFC 7515 section 7.1).
            now: seconds since 1970, in place of the clock.

        Raises:
            InvalidToken: one of its subclasses says why.
            StoreUnavailable: the revocations are too old to be trusted.
            CryptoFault: the two ways of checking a signature contradict each other.
        """
        return self.verified(token, fv_seconds() if now is None else instant(now))

    def view(self, token):
        """Verify one token and return what ``make_view`` makes of its `Claims`: once, for as long as they are cached.

        Raises what `verify` and ``make_view`` do.
        """
        cdef Claims claims = self.verified(token, fv_seconds())
        view = claims.view()
        if view is None:
            if self.make_view is None:
                raise TypeError("this Verifier has no make_view")
            view = self.make_view(claims)
            claims.keep_view(view)
        return view

    def verify_many(self, tokens, *, now=None) -> list:
        """Verify several tokens; `Claims`, or the `InvalidToken` that refused it, for each in the same order.

        Unless ``release_gil`` is False the GIL is given up once for all signatures, or for every 256 of them.

        Raises:
            StoreUnavailable: the revocations are too old to be trusted.
            CryptoFault: the two ways of checking a signature contradict each other.
        """
        cdef long long at = fv_seconds() if now is None else instant(now)
        cdef list all_tokens = list(tokens)
        cdef list results = [None] * len(all_tokens)
        cdef Py_ssize_t first
        for first in range(0, len(all_tokens), BATCH):
            self.verify_batch(all_tokens, results, first, min(first + BATCH, len(all_tokens)), at)
        return results

    def verify_jws(self, token) -> bytes:
        """Verify header and signature only (RFC 7515 section 5.2), and return the payload, whatever it is.

        ``typ``, claims and revocations are not looked at and nothing is cached.

        Raises:
            InvalidToken: one of its subclasses says why.
            CryptoFault: the two ways of checking a signature contradict each other.
        """
        cdef Pending pending
        cdef KeyRing ring = self.current(NULL)
        cdef const unsigned char *text
        cdef size_t size
        if not text_of(token, &text, &size):
            raise refusal(NOT_ASCII, "token")
        pending.scanned = False
        self.begin(ring, text, size, &pending)
        self.check(ring, &pending, self.release)
        return pending.compact.payload[:pending.compact.payload_size]

    def prepare_keys(self) -> int:
        """Build the fast path's tables of ES256 keys now, in their order, until ``fast_keys`` have one; how many do.

        Some tens of milliseconds a key, without the GIL; those that are there already cost nothing. Without it, a table
        is built in the background once its key turns out to be busy, and EVP serves until then.
        """
        return build_tables(self.current(NULL).keys, self.fast_keys) if self.fast else 0

    def replace_keys(self, keys) -> None:
        """Use another set of keys from now on, in one step. Cached tokens of all other keys count no more.

        Raises:
            ConfigError: two keys share algorithm and key id.
        """
        cdef KeyRing ring = KeyRing(distinct_keys(keys, self.current(NULL).keys))
        with cython.critical_section(self):
            self.ring, ring = ring, self.ring  # the old one goes when this function ends, after the new one is in place
            store(&self.generation, self.generation + 1)

    def cache_info(self):
        """What the cache did and holds, as a `CacheInfo`. Its bytes include what the entries keep alive."""
        cdef TokenCache cache = self.cache
        return CacheInfo(load(&cache.hits), load(&cache.misses), cache.size, cache.capacity, cache.bytes)

    def cache_clear(self) -> None:
        """Forget every cached token."""
        self.cache.clear()

    def crypto_info(self):
        """How RSA and ECDSA signatures have been checked by this verifier, as a `CryptoInfo`."""
        cdef Key key
        tables = sum([key.table is not None for key in self.current(NULL).keys])
        return CryptoInfo(load(&self.by_fast), load(&self.by_evp), load(&self.shadowed), load(&self.undecided),
                          load(&self.contradicted), tables)

    def __repr__(self):
        issuer = None if self.issuer is None else self.issuer.decode()
        return f"<Verifier of {self.current(NULL).count} keys, issuer={issuer!r}>"

    cdef KeyRing current(self, unsigned long long *generation):
        """The keys now, and their generation where that is asked for."""
        with cython.critical_section(self):
            if generation != NULL:
                generation[0] = self.generation
            return self.ring

    cdef inline object verified(self, object token, long long at):
        cdef const unsigned char *text
        cdef size_t size
        if not text_of(token, &text, &size):
            raise refusal(NOT_ASCII, "token")
        return self.cached(text, size, at, token)

    cdef inline object cached(self, const unsigned char *text, size_t size, long long at, object token, int hits=1):
        """The claims that are cached, if they still hold; else, with the token given, those of verifying it anew.

        `hits`: what it counts for; 0 where the token has been counted before.
        """
        cdef PyObject *known = self.cache.find(text, size)
        if known != NULL:
            try:
                if self.still_holds(known, at):
                    count(&self.cache.hits, hits)
                    return <object>known
            finally:
                let_go(known)
        return None if token is None else self.cold(token, text, size, at)

    cdef inline bint still_holds(self, PyObject *known, long long at) except -1:
        """Read again all that may have changed since a cached token was verified; False if it must be verified anew."""
        if load(&(<Claims>known).generation) != load(&self.generation) and not self.still_keyed(<Claims>known):
            return False
        if at >= (<Claims>known).valid_until or at < (<Claims>known).valid_from:
            (<Claims>known).check_times(at)
        if self.revocations is not None:
            if load(&(<Claims>known).epoch) != load(&self.revocations.epoch):
                self.check_revoked(<Claims>known, at)
            if self.revocations.fresh_until != NEVER:
                self.check_fresh()
        return True

    cdef object seen(self, const unsigned char *text, size_t size):
        """The view of a token that is cached and still holds; None for every other, whatever is wrong with it."""
        try:
            claims = self.cached(text, size, fv_seconds(), None)
        except (InvalidToken, StoreUnavailable):
            return None
        return None if claims is None else (<Claims>claims).view()

    cdef bint still_keyed(self, Claims claims) except -1:
        """Whether the key of a cached token is among the present ones."""
        cdef unsigned long long generation
        cdef KeyRing ring = self.current(&generation)
        if not ring.holds(claims.key):
            self.cache.drop(claims)
            return False
        store(&claims.generation, generation)
        return True

    cdef Claims cold(self, object token, const unsigned char *text, size_t size, long long at):
        """Verify a token that the cache does not know."""
        cdef Pending pending
        cdef unsigned long long generation
        cdef KeyRing ring = self.current(&generation)
        pending.scanned = True
        count(&self.cache.misses, 1)
        self.begin(ring, text, size, &pending)
        self.check(ring, &pending, self.release)
        return self.accept(token, &pending, generation, at)

    # The steps of a token that is verified anew.

    cdef int begin(self, KeyRing ring, const unsigned char *text, size_t size, Pending *pending) except -1:
        """Split it and find the key that its header means."""
        cdef int code = split(text, size, self.limit, &pending.compact)
        if code != FINE:
            raise refusal(code, "token")
        if self.source is None:
            return ring.choose(&pending.compact, self.types, pending.scanned, &pending.choice)
        try:
            return ring.choose(&pending.compact, self.types, pending.scanned, &pending.choice)
        except (UnknownKey, UnsupportedToken) as error:
            # An algorithm that no key here has may be that of a key to come.
            if isinstance(error, UnknownKey) or error.reason == "algorithm":
                self.source.missed()
            raise

    cdef int check(self, KeyRing ring, Pending *pending, Release release) except -1:
        """Check the signature, and scan the claims if that is wanted."""
        cdef Key key = <Key>pending.choice.key
        cdef Loan loan
        key.lend(&loan, self.fast)
        if key.family != HMAC and self.releases(release):
            with nogil:
                examine(key, &loan, pending)
        else:
            examine(key, &loan, pending)
        self.settle(ring, key, &loan)
        return self.conclude(ring, pending)

    cdef int settle(self, KeyRing ring, Key key, Loan *loan) except -1:
        """Take back what was lent, and count."""
        count(&self.by_fast, loan.by_fast)
        count(&self.by_evp, loan.by_evp)
        count(&self.shadowed, loan.shadowed)
        count(&self.undecided, loan.undecided)
        count(&self.contradicted, loan.contradicted)
        key.take_back(loan)
        if loan.by_evp and self.fast and key.uses >= BUSY and key.quick and key.table is None:
            ask_for_table(ring.keys, key, self.fast_keys)
        return 0

    cdef int conclude(self, KeyRing ring, Pending *pending) except -1:
        """Raise what the examination found, or remember the header."""
        if pending.code == FINE:
            return ring.keep_header(&pending.compact, &pending.choice)
        if pending.code == CHECK_FAILED:
            raise MemoryError
        if pending.code == CHECKS_CONTRADICT:
            self.cache.clear()  # it may hold what only the fast path has seen
            raise CryptoFault()
        if pending.authentic:
            raise claims_refusal(pending.code)
        raise refusal(pending.code, "token" if pending.code == BASE64URL else "")

    cdef Claims accept(self, object token, Pending *pending, unsigned long long generation, long long at):
        """Apply the rules to the claims of a token that is authentic, and remember it."""
        cdef Claims claims = Claims.__new__(Claims)
        claims.read(token, &pending.compact, pending.found)
        claims.key = <Key>pending.choice.key
        claims.algorithm = claims.key.algorithm
        claims.key_id = claims.key.key_id
        claims.generation = generation
        if self.revocations is not None:
            claims.read_handle()
            if claims.has_handle:
                self.revocations.expect(claims.handle16)
        claims.set_times(self.leeway)
        claims.check_times(at)
        claims.check_issuer(self.issuer)
        claims.match_audience(self.audiences)
        if self.revocations is not None:
            self.check_revoked(claims, at)
            if self.revocations.fresh_until != NEVER:
                self.check_fresh()
        self.cache.keep(claims, at)
        return claims

    cdef int verify_batch(self, list tokens, list results, Py_ssize_t first, Py_ssize_t end, long long at) except -1:
        """Verify some of the tokens: all up to the keys, then all signatures at once, then all claims."""
        cdef unsigned long long generation
        cdef KeyRing ring = self.current(&generation)
        cdef Py_ssize_t waiting = 0, i, place
        cdef Pending *batch = <Pending *>PyMem_Malloc((end - first) * sizeof(Pending))
        cdef Loan *loans = <Loan *>PyMem_Calloc(ring.count or 1, sizeof(Loan))
        cdef const unsigned char *text
        cdef size_t size
        cdef Claims claims
        cdef bint asymmetric = False
        try:
            if batch == NULL or loans == NULL:
                raise MemoryError
            for i in range(first, end):
                token = tokens[i]
                try:
                    if not isinstance(token, (str, bytes)) or not text_of(token, &text, &size):
                        raise refusal(NOT_ASCII, "token")
                    claims = self.cached(text, size, at, None)
                    if claims is not None:
                        results[i] = claims
                        continue
                    count(&self.cache.misses, 1)
                    batch[waiting].scanned = True
                    self.begin(ring, text, size, &batch[waiting])
                except InvalidToken as error:
                    results[i] = error.with_traceback(None)
                    continue
                batch[waiting].index = i
                place = ring.place_of(batch[waiting].choice.key)
                batch[waiting].loan = &loans[place]
                asymmetric |= (<Key>batch[waiting].choice.key).family != HMAC
                waiting += 1
                if loans[place].context == NULL:
                    (<Key>batch[waiting - 1].choice.key).lend(&loans[place], self.fast)
            if asymmetric and self.release != HOLD:
                with nogil:
                    for i in range(waiting):
                        examine(<Key>batch[i].choice.key, batch[i].loan, &batch[i])
            else:
                for i in range(waiting):
                    examine(<Key>batch[i].choice.key, batch[i].loan, &batch[i])
            for i in range(waiting):
                if batch[i].code == CHECKS_CONTRADICT:  # before any of the others is accepted
                    self.conclude(ring, &batch[i])
            for i in range(waiting):
                try:
                    self.conclude(ring, &batch[i])
                    # The same token may stand in the batch twice.
                    claims = self.cached(batch[i].compact.text, batch[i].compact.size, at, None, 0)
                    if claims is None:
                        claims = self.accept(tokens[batch[i].index], &batch[i], generation, at)
                    results[batch[i].index] = claims
                except InvalidToken as error:
                    results[batch[i].index] = error.with_traceback(None)
        finally:
            if loans != NULL:
                for i in range(ring.count):
                    if loans[i].context != NULL:
                        self.settle(ring, <Key>ring.slots[i].key, &loans[i])
            PyMem_Free(loans)
            PyMem_Free(batch)
        return 0

    cdef inline bint releases(self, Release release) noexcept:
        return release == RELEASE or release == AUTO and PyThread_get_thread_ident() != main_thread

    cdef int check_revoked(self, Claims claims, long long at) except -1:
        cdef RevocationTable table = self.revocations
        cdef unsigned long long epoch = table.epoch_now()  # read first: what comes in meanwhile is looked up next time
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
        store(&claims.epoch, epoch)
        return 0

    cdef int check_fresh(self) except -1:
        if not fv_monotonic() <= self.revocations.fresh_until:  # a NaN is stale
            if not self.revocations.allow_stale:
                raise StoreUnavailable("the revocations known here are too old to be trusted")
            count(&self.revocations.stale_served, 1)
        return 0


cdef int examine(Key key, Loan *loan, Pending *pending) noexcept nogil:
    """Decode, check the signature, scan the claims: what needs neither Python nor the GIL. The finding is a Refusal."""
    cdef Compact *compact = &pending.compact
    cdef int verdict
    pending.authentic = False
    pending.code = decode(compact)
    if pending.code != FINE:
        return 0
    verdict = check_signature(
        key, loan, compact.text, compact.signing_size, compact.signature, compact.signature_size
    )
    if verdict != 1:
        pending.code = SIGNATURE if verdict == 0 else CHECK_FAILED if verdict == NO_VERDICT else CHECKS_CONTRADICT
        return 0
    pending.authentic = True
    if pending.scanned:
        pending.code = scan_claims(compact, pending.found)
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
    cdef Member found[CLAIMS_NOTED]
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
    code = decode(&compact)
    if code != FINE:
        raise refusal(code, "token")
    code = scan_claims(&compact, found)
    if code != FINE:
        raise claims_refusal(code)
    claims = Claims.__new__(Claims)
    claims.read(token, &compact, found)
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
