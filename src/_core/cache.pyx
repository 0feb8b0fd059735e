# The cache of verified tokens: sets of four places, fixed in entries and in bytes.
#
# A token's place is decided by its last 16 characters, which are signature, mixed with a seed that is random for each
# cache. That finds a candidate; what makes it a hit is the comparison of the whole token, for a shorter key would let
# one valid token speak for another. Only tokens that verified get in, so nobody but a signer can fill it. There is no
# negative cache.
#
# There are twice as many places as entries, so that a full set is rare. Where room is needed, entries that have expired
# go first, then the one that expires soonest of a small neighbourhood: all tokens of one signer live equally long, so
# that is the oldest one.
#
# All of it happens in the cache's critical section (with a GIL: while that is held), but for letting go of what was
# evicted, which may run anybody's code, this cache's too, and comes last.

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy

from openssl cimport ERR_clear_error, RAND_bytes

cdef extern from *:
    """
    typedef unsigned __int128 fv_uint128;

    static inline uint64_t fv_fold(uint64_t a, uint64_t b) {
        fv_uint128 product = (fv_uint128)a * b;
        return (uint64_t)(product >> 64) ^ (uint64_t)product;
    }

    /* The hash scaled to a number of sets that need not be a power of two. */
    static inline uint64_t fv_scale(uint64_t hash, uint64_t sets) {
        return (uint64_t)((fv_uint128)hash * sets >> 64);
    }
    """
    uint64_t fv_fold(uint64_t a, uint64_t b) noexcept nogil
    uint64_t fv_scale(uint64_t hash, uint64_t sets) noexcept nogil

cdef enum:
    WAYS = 4
    NEIGHBOURHOOD = 8  # sets that are looked at for something to evict
    KEY_BYTES = 16
    ENTRY_OVERHEAD = 2 * 16 + 56 + 16 + 32  # two places; the headers of the str, of the collector and of malloc

cdef struct Place:
    uint64_t hash
    PyObject *claims  # owned; NULL: empty


@cython.final
@cython.internal
cdef class TokenCache:
    cdef Place *places
    cdef uint64_t sets
    cdef uint64_t hand  # the set at which the next search for room starts
    cdef uint64_t seed[2]
    cdef unsigned long long hits, misses
    cdef size_t size, capacity, bytes
    cdef size_t limit
    cdef size_t extra  # bytes that an entry costs besides

    def __cinit__(self, size_t capacity, size_t limit, size_t extra):
        self.capacity = capacity
        self.limit = limit
        self.extra = extra
        if RAND_bytes(<unsigned char *>self.seed, sizeof(self.seed)) != 1:
            ERR_clear_error()
            raise OSError("libcrypto has no randomness")
        if capacity == 0:
            return
        self.sets = (2 * capacity + WAYS - 1) // WAYS
        self.places = <Place *>PyMem_Calloc(self.sets * WAYS, sizeof(Place))
        if self.places == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.places != NULL:
            self.clear()
            PyMem_Free(self.places)

    cdef inline uint64_t hash(self, const unsigned char *text, size_t size) noexcept:
        cdef uint64_t words[2]
        memcpy(words, text + size - KEY_BYTES, KEY_BYTES)
        return fv_fold(words[0] ^ self.seed[0], words[1] ^ self.seed[1])

    cdef inline PyObject *find(self, const unsigned char *text, size_t size) noexcept:
        """The claims of this very token, held for the caller, who has to let go of them; or NULL."""
        cdef PyObject *found = NULL
        cdef uint64_t hash
        cdef Place *place
        cdef int i
        if self.sets == 0 or size < KEY_BYTES:
            return NULL
        hash = self.hash(text, size)
        place = self.places + fv_scale(hash, self.sets) * WAYS
        with cython.critical_section(self):
            for i in range(WAYS):
                if place[i].hash == hash and place[i].claims != NULL and is_of(place[i].claims, text, size):
                    found = place[i].claims
                    hold(found)
                    break
        return found

    cdef int keep(self, Claims claims, long long at) except -1:
        """Put the claims of a verified token in."""
        cdef size_t cost = cost_of(claims) + self.extra
        cdef PyObject *evicted = NULL
        cdef uint64_t hash
        cdef Place *place
        if self.sets == 0 or claims.size < KEY_BYTES or cost > self.limit:
            return 0
        with cython.critical_section(self):
            while self.size >= self.capacity or self.bytes + cost > self.limit:
                self.make_room(at, &evicted)
            hash = self.hash(claims.text, claims.size)
            place = self.place_for(self.places + fv_scale(hash, self.sets) * WAYS, hash, claims)
            if place.claims != NULL:
                self.evict(place, &evicted)
            Py_INCREF(claims)
            place.hash = hash
            place.claims = <PyObject *>claims
            self.size += 1
            self.bytes += cost
        return drop_all(evicted)

    cdef Place *place_for(self, Place *places, uint64_t hash, Claims claims) noexcept:
        """The place of the same token, else an empty one, else the one that expires soonest."""
        cdef Place *best = places
        cdef int i
        for i in range(WAYS):
            if places[i].claims == NULL:
                best = &places[i]
            elif places[i].hash == hash and is_of(places[i].claims, claims.text, claims.size):
                return &places[i]
            elif best.claims != NULL and (<Claims>places[i].claims).valid_until < (<Claims>best.claims).valid_until:
                best = &places[i]
        return best

    cdef void make_room(self, long long at, PyObject **evicted) noexcept:
        """Evict what has expired in the next few sets, or else what expires soonest there."""
        cdef Place *soonest = NULL
        cdef Place *place
        cdef bint found = False
        cdef uint64_t first = self.hand * WAYS
        cdef uint64_t i
        for i in range(min(<uint64_t>NEIGHBOURHOOD, self.sets) * WAYS):
            place = &self.places[(first + i) % (self.sets * WAYS)]
            if place.claims == NULL:
                continue
            if (<Claims>place.claims).valid_until <= at:
                found = True
                self.evict(place, evicted)
            elif soonest == NULL or (<Claims>place.claims).valid_until < (<Claims>soonest.claims).valid_until:
                soonest = place
        if not found and soonest != NULL:
            self.evict(soonest, evicted)
        self.hand = (self.hand + NEIGHBOURHOOD) % self.sets

    cdef void evict(self, Place *place, PyObject **evicted) noexcept:
        """Take an entry out of its place, onto a list of those to let go of."""
        cdef PyObject *entry = place.claims
        place.claims = NULL
        self.size -= 1
        self.bytes -= cost_of(<Claims>entry) + self.extra
        (<Claims>entry).next_evicted = evicted[0]
        evicted[0] = entry

    cdef int drop(self, Claims claims) except -1:
        """Take one entry out, if it is there."""
        cdef uint64_t hash = self.hash(claims.text, claims.size)
        cdef Place *places = self.places + fv_scale(hash, self.sets) * WAYS
        cdef PyObject *evicted = NULL
        cdef int i
        with cython.critical_section(self):
            for i in range(WAYS):
                if places[i].claims == <PyObject *>claims:
                    self.evict(&places[i], &evicted)
                    break
        return drop_all(evicted)

    cdef int clear(self) except -1:
        cdef PyObject *evicted = NULL
        cdef uint64_t i
        with cython.critical_section(self):
            for i in range(self.sets * WAYS):
                if self.places[i].claims != NULL:
                    self.evict(&self.places[i], &evicted)
        return drop_all(evicted)


cdef int drop_all(PyObject *evicted) except -1:
    """Drop the cache's references."""
    cdef Claims claims
    while evicted != NULL:
        claims = <Claims>evicted
        evicted = claims.next_evicted
        # The memo refers back to the claims: a cycle that would otherwise wait for the garbage collector.
        claims.keep_view(None)
        Py_DECREF(claims)
    return 0


cdef inline size_t cost_of(Claims claims) noexcept:
    """Bytes that an entry keeps alive."""
    return sizeof_claims + claims.size + claims.payload_size + JSON_PAD + ENTRY_OVERHEAD


cdef inline bint is_of(PyObject *claims, const unsigned char *text, size_t size) noexcept:
    """Whether these are the claims of this token: of all of it. (Neither str nor bytes ever change.)"""
    return (<Claims>claims).size == size and (
        (<Claims>claims).text == text or memcmp((<Claims>claims).text, text, size) == 0
    )


cdef size_t sizeof_claims = Claims.__basicsize__
