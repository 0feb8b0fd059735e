# The revocation table: what a verifier holds locally of all that is revoked (revocation.md), asked on every cold
# verify.
#
# Theory of operation
#
# An entry is 25 bytes, its own identity: kind (1) | target (16) | cutoff (8, milliseconds, big-endian, 0 where none).
# Entries only accumulate until they expire, so adding is idempotent and the order does not matter.
#
# Sessions, tokens and keys (there may be tens of millions) lie in an open hash table of 64-byte cache lines:
#
#     | target 0 | target 1 | target 2 | expiry 0 | expiry 1 | expiry 2 | kind 0 | kind 1 | kind 2 | passed |
#     0          16         32         48         52         56         60       61       62       63
#
# A kind of 0 is an empty place. An entry that finds its home line full goes to the first later line (cyclically) with
# room, and leaves in every full line that it passes one of eight marks, chosen by its hash; a search ends at the first
# line that lacks its mark. So an absent target, the usual case, costs one cache line and seldom (one time in four at
# most) a second one. Where a target lives is decided by a hash seeded at random for each table: nobody who can choose
# targets can choose collisions.
#
# The table is cut into 256 segments by the top bits of that hash. A segment grows by building a larger array beside
# the old one and swapping the pointer; it holds 1/256 of everything, so the longest that a growth or a purge keeps
# the process waiting is about a millisecond at ten million entries, and so little memory is held twice. Growing by a
# quarter keeps the load between 60 and 75 per cent: 28 to 36 bytes an entry.
#
# Tenants and "all" (a handful) are kept apart, as the sorted 25-byte entries themselves.
#
# Readers and writers hold the GIL, for the length of one call or of one segment: readers need no lock, and memory
# that a swap leaves behind has no reader. (The module does not declare itself safe without a GIL.)

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memmove

from openssl cimport RAND_bytes

cdef enum:
    ENTRY_BYTES = 25
    SEGMENTS = 256
    LINE_PLACES = 3

# The kinds of entry (revocation.md); 0 means none.
cdef enum:
    KIND_SESSION = 1
    KIND_TOKEN = 2
    KIND_KEY = 3
    KIND_TENANT = 4
    KIND_ALL = 5

# What an addition changed.
cdef enum:
    SAME = 0
    LATER = 1  # the expiry of an entry that was there
    NEW = 2

cdef struct Line:
    uint8_t targets[3][16]
    uint32_t expiries[3]
    uint8_t kinds[3]
    uint8_t passed

cdef struct Segment:
    void *memory  # what malloc gave; lines is the first cache line boundary in it
    Line *lines
    uint32_t size  # lines
    uint32_t used  # entries
    uint32_t soonest  # no entry expires before this; 0xFFFFFFFF when empty

cdef struct Cutoff:
    uint8_t entry[25]
    uint32_t expiry


@cython.final
@cython.auto_pickle(False)
cdef class RevocationTable:
    """The revocations that this process enforces, filled by whoever follows the store.

    ``when_stale`` says what a verifier does past ``fresh_until`` (seconds of CLOCK_MONOTONIC): ``"refuse"`` raises
    `StoreUnavailable`; ``"allow"`` serves by signature and expiry and counts that in ``stale_served``. ``epoch`` rises
    with every entry that changes what is refused.
    """

    cdef Segment segments[SEGMENTS]
    cdef Cutoff *cutoffs
    cdef size_t cutoffs_used
    cdef size_t cutoffs_size
    cdef size_t counts[6]  # entries of each kind
    cdef uint64_t seed[2]
    cdef bint allow_stale
    cdef readonly unsigned long long epoch
    cdef readonly unsigned long long stale_served
    cdef public double fresh_until

    def __cinit__(self, *, str when_stale not None="refuse"):
        cdef int i
        for i in range(SEGMENTS):
            self.segments[i].soonest = 0xFFFFFFFFU
        self.fresh_until = float("inf")
        if when_stale not in ("refuse", "allow"):
            raise ConfigError("when_stale", 'it is "refuse" or "allow"')
        self.allow_stale = when_stale == "allow"
        if RAND_bytes(<unsigned char *>self.seed, sizeof(self.seed)) != 1:
            clear_errors()
            raise OSError("libcrypto has no randomness")

    def __dealloc__(self):
        cdef int i
        for i in range(SEGMENTS):
            free(self.segments[i].memory)
        free(self.cutoffs)

    @property
    def when_stale(self) -> str:
        """What is done once ``fresh_until`` has passed: ``"refuse"`` or ``"allow"``."""
        return "allow" if self.allow_stale else "refuse"

    def add(self, bytes entry not None, expires_at) -> bool:
        """Enter one revocation until ``expires_at`` (seconds since 1970); whether it was not there before.

        One that is there already lives until the later of the two times. Raises ValueError for bytes that are no entry.
        """
        check_entries(entry, single=True)
        return self.put(entry, expiry_of(expires_at)) == 1

    def add_many(self, bytes packed not None, expires_at) -> int:
        """Enter many revocations of one expiry, packed end to end, and return how many were new.

        Raises ValueError, with nothing entered, when any of them is no entry. The GIL is held for the whole of it: some
        thousands at a time keep other threads going.
        """
        cdef uint32_t expiry = expiry_of(expires_at)
        cdef const uint8_t *at = packed
        cdef size_t count = len(packed) // ENTRY_BYTES
        cdef size_t added = 0
        check_entries(packed, single=False)
        for _ in range(count):
            added += self.put(at, expiry)
            at += ENTRY_BYTES
        return added

    def discard_expired(self, now) -> int:
        """Forget the entries that expired at ``now`` (seconds since 1970) or before, and return how many there were.

        Cheap when nothing has expired; otherwise the GIL is given up after every segment.
        """
        cdef uint32_t instant = expiry_of(now)
        cdef size_t discarded = self.purge_cutoffs(instant)
        cdef size_t before
        cdef int i
        for i in range(SEGMENTS):
            if self.segments[i].soonest <= instant:
                before = self.segments[i].used
                self.rebuild(&self.segments[i], instant, 0)
                discarded += before - self.segments[i].used
                with nogil:
                    pass
        return discarded

    def lookup(self, *, bytes session=None, bytes token=None, bytes key=None, bytes tenant=None,
               long long issued_at=-1, now) -> int:
        """The kind (1 to 5) of the entry that refuses a token with these 16-byte targets, or 0: what a `Verifier` asks.

        ``issued_at`` is the token's ``iat``; one without is older than any cutoff (-1). ``now``: seconds since 1970.
        """
        for target in (session, token, key, tenant):
            if target is not None and len(target) != 16:
                raise ValueError("a target has 16 bytes")
        cdef uint32_t instant = expiry_of(now)
        return self.find(target_of(session), target_of(token), target_of(key), target_of(tenant), issued_at, instant)

    def entries(self):
        """Every entry and its expiry, ``(bytes, int)``, in no particular order.

        What is added or discarded meanwhile may or may not be among them; everything else comes exactly once.
        """
        cdef int i
        for i in range(SEGMENTS):
            yield from segment_entries(&self.segments[i])
        yield from cutoff_entries(self.cutoffs, self.cutoffs_used)

    def __len__(self):
        return self.counts[1] + self.counts[2] + self.counts[3] + self.counts[4] + self.counts[5]

    def __sizeof__(self):
        cdef size_t total = object.__sizeof__(self) + self.cutoffs_size * sizeof(Cutoff)
        cdef int i
        for i in range(SEGMENTS):
            if self.segments[i].size:
                total += (self.segments[i].size + 1) * sizeof(Line)
        return total

    def __repr__(self):
        return f"<RevocationTable of {len(self)} entries, epoch {self.epoch}>"

    # Reading.

    cdef int find(self, const unsigned char *handle16, const unsigned char *digest16, const unsigned char *kid16,
                  const unsigned char *tenant16, long long iat, unsigned int now) noexcept:
        """The kind of entry that refuses this token, or 0. NULL stands for what a token does not have.

        Called with the GIL held; touches no Python object. A caller needs to compute only the targets of kinds that
        ``counts`` says are there. A token without ``iat`` is older than any cutoff: pass -1.
        """
        if self.counts[KIND_SESSION] and handle16 is not NULL and self.holds(KIND_SESSION, handle16, now):
            return KIND_SESSION
        if self.counts[KIND_TOKEN] and digest16 is not NULL and self.holds(KIND_TOKEN, digest16, now):
            return KIND_TOKEN
        if self.counts[KIND_KEY] and kid16 is not NULL and self.holds(KIND_KEY, kid16, now):
            return KIND_KEY
        if self.counts[KIND_TENANT] and tenant16 is not NULL and self.cut(KIND_TENANT, tenant16, iat, now):
            return KIND_TENANT
        if self.counts[KIND_ALL] and self.cut(KIND_ALL, NO_TARGET, iat, now):
            return KIND_ALL
        return 0

    cdef bint holds(self, int kind, const uint8_t *target, uint32_t now) noexcept:
        cdef uint64_t hash = self.hash(kind, target)
        cdef Segment *segment = &self.segments[hash >> 56]
        cdef Line *line
        cdef int place
        if segment.size == 0:
            return False
        line = find_place(segment, hash, kind, target, &place)
        return line is not NULL and line.expiries[place] > now

    cdef bint cut(self, int kind, const uint8_t *target, long long iat, uint32_t now) noexcept:
        cdef uint8_t prefix[17]
        cdef size_t i
        prefix[0] = kind
        memcpy(prefix + 1, target, 16)
        i = self.first_cutoff(prefix, sizeof(prefix))
        while i < self.cutoffs_used and memcmp(self.cutoffs[i].entry, prefix, sizeof(prefix)) == 0:
            if self.cutoffs[i].expiry > now and iat <= <long long>(big_endian(self.cutoffs[i].entry + 17) // 1000):
                return True
            i += 1
        return False

    cdef size_t first_cutoff(self, const uint8_t *prefix, size_t length) noexcept:
        """Where the first cutoff that does not sort before these bytes is."""
        cdef size_t low = 0
        cdef size_t high = self.cutoffs_used
        cdef size_t middle
        while low < high:
            middle = (low + high) // 2
            if memcmp(self.cutoffs[middle].entry, prefix, length) < 0:
                low = middle + 1
            else:
                high = middle
        return low

    cdef uint64_t hash(self, int kind, const uint8_t *target) noexcept:
        """Seeded mixing (the finaliser of MurmurHash3 after each half); targets are random or SHA-256 to begin with."""
        cdef uint64_t low
        cdef uint64_t high
        memcpy(&low, target, 8)
        memcpy(&high, target + 8, 8)
        return mixed(mixed(low ^ self.seed[0]) ^ high ^ self.seed[1] ^ <uint64_t>kind)

    # Writing.

    cdef int put(self, const uint8_t *entry, uint32_t expiry) except -1:
        """Enter one checked entry: 1 if it is new, 0 if it was there (the later expiry stays)."""
        cdef int kind = entry[0]
        cdef int change
        if kind >= KIND_TENANT:
            change = self.put_cutoff(entry, expiry)
        else:
            change = self.put_target(kind, entry + 1, expiry)
        self.counts[kind] += change == NEW
        # Tokens that a cache holds were looked up at an older epoch and now are again. An entry that comes a second
        # time, as every one does that this process made itself, changes no answer and costs nothing.
        self.epoch += change != SAME
        return change == NEW

    cdef int put_target(self, int kind, const uint8_t *target, uint32_t expiry) except -1:
        cdef uint64_t hash = self.hash(kind, target)
        cdef Segment *segment = &self.segments[hash >> 56]
        cdef Line *line = NULL
        cdef int place = 0
        if segment.size:
            line = find_place(segment, hash, kind, target, &place)
        if line is not NULL:
            if line.expiries[place] >= expiry:
                return SAME
            line.expiries[place] = expiry
            return LATER
        if 4 * (segment.used + 1) > 9 * segment.size:  # more than three quarters of 3 places a line
            self.rebuild(segment, 0, 1)
        place_entry(segment, hash, kind, target, expiry)
        return NEW

    cdef int rebuild(self, Segment *segment, uint32_t expired, uint32_t room) except -1:
        """Replace the segment's array by one for what is unexpired and ``room`` more, with a quarter to spare."""
        cdef Segment new
        cdef Line *line
        cdef uint32_t i
        cdef int place
        cdef uint32_t kept = segment.used
        if expired:
            kept = 0
            for i in range(segment.size):
                for place in range(LINE_PLACES):
                    kept += segment.lines[i].kinds[place] != 0 and segment.lines[i].expiries[place] > expired
        allocate_segment(&new, kept + room)
        for i in range(segment.size):
            line = &segment.lines[i]
            for place in range(LINE_PLACES):
                if line.kinds[place] == 0:
                    continue
                if line.expiries[place] > expired:
                    place_entry(&new, self.hash(line.kinds[place], line.targets[place]), line.kinds[place],
                                line.targets[place], line.expiries[place])
                else:
                    self.counts[line.kinds[place]] -= 1
        free(segment.memory)
        segment[0] = new
        return 0

    cdef int put_cutoff(self, const uint8_t *entry, uint32_t expiry) except -1:
        cdef size_t at = self.first_cutoff(entry, ENTRY_BYTES)
        cdef void *grown
        if at < self.cutoffs_used and memcmp(self.cutoffs[at].entry, entry, ENTRY_BYTES) == 0:
            if self.cutoffs[at].expiry >= expiry:
                return SAME
            self.cutoffs[at].expiry = expiry
            return LATER
        if self.cutoffs_used == self.cutoffs_size:
            grown = realloc(self.cutoffs, (2 * self.cutoffs_size + 4) * sizeof(Cutoff))
            if grown is NULL:
                raise MemoryError
            self.cutoffs = <Cutoff *>grown
            self.cutoffs_size = 2 * self.cutoffs_size + 4
        memmove(self.cutoffs + at + 1, self.cutoffs + at, (self.cutoffs_used - at) * sizeof(Cutoff))
        memcpy(self.cutoffs[at].entry, entry, ENTRY_BYTES)
        self.cutoffs[at].expiry = expiry
        self.cutoffs_used += 1
        return NEW

    cdef size_t purge_cutoffs(self, uint32_t expired) noexcept:
        cdef size_t i
        cdef size_t kept = 0
        cdef size_t before = self.cutoffs_used
        for i in range(self.cutoffs_used):
            if self.cutoffs[i].expiry > expired:
                self.cutoffs[kept] = self.cutoffs[i]
                kept += 1
            else:
                self.counts[self.cutoffs[i].entry[0]] -= 1
        self.cutoffs_used = kept
        return before - kept


cdef uint8_t NO_TARGET[16]


cdef const uint8_t *target_of(bytes target) noexcept:
    if target is None:
        return NULL
    return target


cdef inline uint64_t mixed(uint64_t word) noexcept nogil:
    word = (word ^ (word >> 33)) * 0xFF51AFD7ED558CCDULL
    word = (word ^ (word >> 33)) * 0xC4CEB9FE1A85EC53ULL
    return word ^ (word >> 33)


cdef inline uint64_t big_endian(const uint8_t *bytes8) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(8):
        number = number << 8 | bytes8[i]
    return number


cdef inline uint32_t home_of(Segment *segment, uint64_t hash) noexcept nogil:
    """The low half of the hash scaled to the number of lines, which need not be a power of two."""
    return <uint32_t>(<uint64_t><uint32_t>hash * segment.size >> 32)


cdef inline uint8_t mark_of(uint64_t hash) noexcept nogil:
    """One bit, by hash bits that choose neither segment nor home."""
    return 1 << (hash >> 32 & 7)


cdef inline Line *find_place(Segment *segment, uint64_t hash, int kind, const uint8_t *target,
                             int *place) noexcept nogil:
    """The line and place of an entry, or NULL. A quarter of all places is free, so the search ends."""
    cdef uint32_t at = home_of(segment, hash)
    cdef uint8_t mark = mark_of(hash)
    cdef Line *line
    cdef int i
    while True:
        line = &segment.lines[at]
        for i in range(LINE_PLACES):
            if line.kinds[i] == kind and memcmp(line.targets[i], target, 16) == 0:
                place[0] = i
                return line
        if not line.passed & mark:
            return NULL
        at = at + 1 if at + 1 < segment.size else 0


cdef void place_entry(Segment *segment, uint64_t hash, int kind, const uint8_t *target, uint32_t expiry) noexcept nogil:
    """Put an entry that is not there into a segment that has room."""
    cdef uint32_t at = home_of(segment, hash)
    cdef Line *line
    cdef int i
    while True:
        line = &segment.lines[at]
        for i in range(LINE_PLACES):
            if line.kinds[i] == 0:
                memcpy(line.targets[i], target, 16)
                line.expiries[i] = expiry
                line.kinds[i] = kind
                segment.used += 1
                segment.soonest = min(segment.soonest, expiry)
                return
        line.passed |= mark_of(hash)
        at = at + 1 if at + 1 < segment.size else 0


cdef int allocate_segment(Segment *segment, uint32_t entries) except -1:
    """An empty segment for so many entries at a load of 60 per cent; none at all for none."""
    segment.memory = NULL
    segment.lines = NULL
    segment.size = 0
    segment.used = 0
    segment.soonest = 0xFFFFFFFFU
    if entries == 0:
        return 0
    segment.size = 1 + <uint32_t>(<uint64_t>entries * 5 // 9)
    segment.memory = calloc(segment.size + 1, sizeof(Line))
    if segment.memory is NULL:
        raise MemoryError
    segment.lines = <Line *>((<size_t>segment.memory + sizeof(Line) - 1) & ~<size_t>(sizeof(Line) - 1))
    return 0


# Making Python objects may set off the garbage collector, and with it code of anybody's that adds to this very table
# and so frees what is being read. Both of these first copy the memory into bytes, the making of which sets off nothing.

cdef list segment_entries(Segment *segment):
    cdef bytes copy = (<const char *>segment.lines)[:segment.size * sizeof(Line)] if segment.size else b""
    cdef const Line *lines = <const Line *><const char *>copy
    cdef const Line *line
    cdef size_t i
    cdef int place
    cdef list found = []
    for i in range(<size_t>len(copy) // sizeof(Line)):
        line = &lines[i]
        for place in range(LINE_PLACES):
            if line.kinds[place]:
                entry = bytes((line.kinds[place],)) + line.targets[place][:16] + bytes(8)
                found.append((entry, line.expiries[place]))
    return found


cdef list cutoff_entries(const Cutoff *cutoffs, size_t count):
    cdef bytes copy = (<const char *>cutoffs)[:count * sizeof(Cutoff)] if count else b""
    cdef const Cutoff *cutoff = <const Cutoff *><const char *>copy
    cdef size_t i
    return [((<const char *>cutoff[i].entry)[:ENTRY_BYTES], cutoff[i].expiry) for i in range(count)]


cdef uint32_t expiry_of(seconds) except? 0xFFFFFFFFU:
    """An instant in the 32 bits that the table keeps: until the year 2106."""
    if not 0 < seconds < 0xFFFFFFFF:
        raise ValueError("an instant is in seconds since 1970, before 2106")
    return <uint32_t>seconds


cdef int check_entries(bytes packed, bint single) except -1:
    cdef const uint8_t *entry = packed
    if len(packed) != ENTRY_BYTES if single else len(packed) % ENTRY_BYTES:
        raise ValueError(f"an entry has {ENTRY_BYTES} bytes")
    for _ in range(len(packed) // ENTRY_BYTES):
        if not KIND_SESSION <= entry[0] <= KIND_ALL:
            raise ValueError(f"there is no revocation of kind {entry[0]}")
        if entry[0] < KIND_TENANT and big_endian(entry + 17) != 0:
            raise ValueError("only tenant and all entries have a cutoff")
        if entry[0] == KIND_ALL and memcmp(entry + 1, NO_TARGET, 16) != 0:
            raise ValueError("an entry for all has no target")
        entry += ENTRY_BYTES
    return 0
