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
# All lines are one region of memory, in the order of the hash, cut into slices of at most 1,024 lines; "cyclically"
# means within a slice. A region that is three quarters full is replaced by one that is 61 per cent full: 28 to 35 bytes
# an entry. The new region is filled slice by slice, at least one with each change of the table, and what has moved of
# the old one is given back meanwhile: growing takes hardly more memory than having grown. Forgetting what has expired
# is the same move without the expired.
#
# Readers take no lock and wait for nobody. Before a region's lines stands how many of them have moved, and where to; a
# reader follows if the line that it wants is one of them. Within a region nothing is ever moved or erased: a place
# is filled once, its kind last; marks are only added; an expiry only becomes later. So a reader finds whatever had been
# entered when it read the epoch.
#
# Writers take turns of a fraction of a millisecond. What needs more than one, or moves slices, is done without the GIL:
# memory that a process touches for the first time can take milliseconds to come. What is short is done with it, for
# a thread that gives the GIL up and takes it back at once starves those who wait for it. A fork waits for the end of a
# turn, so that the child's tables are whole.
#
# Memory that was left behind may still be read by somebody who came before. A reader holds the GIL throughout, so
# whoever has the GIL knows that there is none now. Without a GIL a reader holds one of a few guards, its thread's, and
# who has passed through each of them knows the same; threads that share a guard wait for each other's look-ups there.
#
# Tenants and "all" (a handful) are kept apart, as the sorted 25-byte entries themselves: an array that is replaced as a
# whole by each change.

import os

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from openssl cimport RAND_bytes

cdef enum:
    ENTRY_BYTES = 25
    LINE_PLACES = 3
    SLICE_LINES = 1024  # at most; enough that none is ever full while the whole is at three quarters (10^-46)
    LEAST_LINES = 63  # with the first line, one page
    GRANULE = 1 << 21  # memory is given back by so many bytes, large pages as a whole
    UNSEEN_BYTES = 1 << 22  # so much may be left behind before a writer looks for readers
    TURN_WORK = 1024  # entries in one turn of a writer: a tenth of a millisecond
    MOVE_WORK = 256  # what moving a slice counts
    MOVES_BESIDES = 16  # slices that a writer moves when it has given up the GIL anyway

# The kinds of entry (revocation.md); 0 means none.
cdef enum:
    KIND_SESSION = 1
    KIND_TOKEN = 2
    KIND_KEY = 3
    KIND_TENANT = 4
    KIND_ALL = 5

# What a turn comes to.
cdef enum:
    NO_MEMORY = -1
    MORE = 0
    DONE = 1
    ENOUGH = 2  # as much is left behind as may be

# What an addition changed; or NO_MEMORY.
cdef enum:
    SAME = 0
    LATER = 1  # the expiry of an entry that was there
    NEW = 2

cdef uint32_t NEVER_EXPIRES = 0xFFFFFFFFU

cdef struct Target:
    uint64_t words[2]

cdef struct Line:
    Target targets[3]
    uint32_t expiries[3]
    uint8_t kinds[3]
    uint8_t passed

# What stands before the lines of a region, in the space of one.
cdef struct Region:
    size_t bytes
    size_t lines
    size_t slice  # lines of a slice; both others are multiples
    size_t moved  # so many of the lines are in the next region
    Region *next
    Region *behind  # in the list of those that are left behind
    size_t given_back  # the address up to which memory was, but for the granule that this is in

cdef struct Cutoff:
    uint8_t entry[25]
    uint32_t expiry

cdef struct Cutoffs:
    Cutoffs *behind
    size_t used
    Cutoff sorted[1]

# What is to be entered.
cdef struct Batch:
    const uint8_t *entry
    size_t left
    uint32_t expiry
    size_t added
    int moves  # slices that may be moved besides

# What is known about what has expired at an instant, from so many slices of a region.
cdef struct Survey:
    uint32_t instant
    bint complete
    size_t region  # its number; 0: not begun
    size_t lines
    unsigned long long epoch
    size_t gone
    size_t kept
    uint32_t soonest

cdef extern from *:
    """
    #include <sys/mman.h>

    #define fv_acquire(place) __atomic_load_n(place, __ATOMIC_ACQUIRE)
    #define fv_release(place, value) __atomic_store_n(place, value, __ATOMIC_RELEASE)

    /* The first hash whose home is this line or a later one. */
    static inline uint64_t fv_edge(uint64_t line, uint64_t lines) {
        return (uint64_t)((((unsigned __int128)line << 64) + lines - 1) / lines);
    }

    /* Memory of zeros that exists as far as it is touched. Large pages, where there is enough of it, save a look-up in
       many millions of entries about half its time. */
    static inline void *fv_map(size_t bytes) {
        void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
    #ifdef MADV_HUGEPAGE
        if (memory != MAP_FAILED && bytes >= 4 << 20) madvise(memory, bytes, MADV_HUGEPAGE);
    #endif
        return memory == MAP_FAILED ? NULL : memory;
    }

    #define FV_GUARDS 32
    #ifdef Py_GIL_DISABLED
    typedef struct {
        PyMutex mutex;
        char apart[64 - sizeof(PyMutex)];
    } fv_guard;

    /* The stack tells threads apart. */
    static inline fv_guard *fv_enter(fv_guard *guards) {
        fv_guard *own = &guards[((uint64_t)(uintptr_t)&guards >> 16) * 0x9E3779B97F4A7C15 >> 59];
        PyMutex_Lock(&own->mutex);
        return own;
    }
    static inline void fv_leave(fv_guard *own) { PyMutex_Unlock(&own->mutex); }
    static inline void fv_pass(fv_guard *guards) {
        for (int i = 0; i < FV_GUARDS; i++) {
            PyMutex_Lock(&guards[i].mutex);
            PyMutex_Unlock(&guards[i].mutex);
        }
    }
    #else
    typedef char fv_guard;
    static inline fv_guard *fv_enter(fv_guard *guards) { return guards; }
    static inline void fv_leave(fv_guard *own) { (void)own; }
    static inline void fv_pass(fv_guard *guards) { (void)guards; }
    #endif
    """
    enum: FV_GUARDS
    ctypedef struct fv_guard:
        pass
    fv_guard *fv_enter(fv_guard *guards) noexcept nogil
    void fv_leave(fv_guard *own) noexcept nogil
    void fv_pass(fv_guard *guards) noexcept nogil
    uint8_t load8 "fv_acquire"(const uint8_t *place) noexcept nogil
    uint32_t load32 "fv_acquire"(const uint32_t *place) noexcept nogil
    size_t load_size "fv_acquire"(const size_t *place) noexcept nogil
    uint64_t load_word "fv_acquire"(const uint64_t *place) noexcept nogil
    uint64_t load64 "fv_acquire"(const unsigned long long *place) noexcept nogil
    Region *load_region "fv_acquire"(Region **place) noexcept nogil
    Cutoffs *load_cutoffs "fv_acquire"(Cutoffs **place) noexcept nogil
    void store8 "fv_release"(uint8_t *place, uint8_t value) noexcept nogil
    void store32 "fv_release"(uint32_t *place, uint32_t value) noexcept nogil
    void store_word "fv_release"(uint64_t *place, uint64_t value) noexcept nogil
    void store64 "fv_release"(unsigned long long *place, uint64_t value) noexcept nogil
    void store_size "fv_release"(size_t *place, size_t value) noexcept nogil
    void store_region "fv_release"(Region **place, Region *value) noexcept nogil
    void store_cutoffs "fv_release"(Cutoffs **place, Cutoffs *value) noexcept nogil
    uint64_t fv_edge(uint64_t line, uint64_t lines) noexcept nogil
    void *fv_map(size_t bytes) noexcept nogil
    int munmap(void *memory, size_t bytes) noexcept nogil

# The turn of a writer, whatever its table. Who waits for it comes before those who come later, so that a long call of
# many turns holds nobody up. The GIL is not held while waiting; having waited, one may wait for the GIL.
cdef cython.pymutex writing
cdef cython.pymutex next_in_line


cdef void start_writing() noexcept nogil:
    next_in_line.acquire()
    writing.acquire()
    next_in_line.release()


cdef void stop_writing() noexcept nogil:
    writing.release()


def _before_fork():
    next_in_line.acquire()
    writing.acquire()


def _after_fork_on_both_sides():
    writing.release()
    next_in_line.release()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_on_both_sides, after_in_child=_after_fork_on_both_sides
)


@cython.final
@cython.auto_pickle(False)
cdef class RevocationTable:
    """The revocations that this process enforces, filled by whoever follows the store. All threads may use it at once.

    ``when_stale`` says what a verifier does past ``fresh_until`` (seconds of CLOCK_MONOTONIC): ``"refuse"`` raises
    `StoreUnavailable`; ``"allow"`` serves by signature and expiry and counts that in ``stale_served``. ``epoch`` rises
    with every entry that changes what is refused.
    """

    # What readers read at every call, together.
    cdef readonly unsigned long long epoch
    cdef public double fresh_until
    cdef Region *region
    cdef Cutoffs *cutoffs
    cdef size_t counts[6]  # entries of each kind
    cdef uint64_t seed[2]
    cdef bint allow_stale
    cdef readonly unsigned long long stale_served
    # What only the writer at work touches.
    cdef size_t regions  # so many there have been
    cdef size_t filled  # entries in the newest
    cdef uint32_t soonest  # no entry of a region expires before this
    cdef uint32_t expired  # what had expired at this instant stays behind when slices move; 0: everything moves
    cdef int growing  # the next change moves a slice or asks for memory
    cdef size_t forgotten  # entries, since somebody last asked
    cdef size_t unseen  # bytes left behind since a writer last looked for readers
    cdef Region *regions_behind
    cdef Cutoffs *cutoffs_behind
    cdef fv_guard guards[FV_GUARDS]

    def __cinit__(self, *, str when_stale not None="refuse"):
        self.soonest = NEVER_EXPIRES
        self.fresh_until = float("inf")
        if when_stale not in ("refuse", "allow"):
            raise ConfigError("when_stale", 'it is "refuse" or "allow"')
        self.allow_stale = when_stale == "allow"
        if RAND_bytes(<unsigned char *>self.seed, sizeof(self.seed)) != 1:
            clear_errors()
            raise OSError("libcrypto has no randomness")

    def __dealloc__(self):
        if self.region is not NULL:
            self.region.behind = self.regions_behind
            self.regions_behind = self.region
            if self.region.next is not NULL:
                self.region.next.behind = self.regions_behind
                self.regions_behind = self.region.next
        if self.cutoffs is not NULL:
            self.cutoffs.behind = self.cutoffs_behind
            self.cutoffs_behind = self.cutoffs
        free_regions(self.regions_behind)
        free_cutoffs(self.cutoffs_behind)

    @property
    def when_stale(self) -> str:
        """What is done once ``fresh_until`` has passed: ``"refuse"`` or ``"allow"``."""
        return "allow" if self.allow_stale else "refuse"

    def add(self, bytes entry not None, expires_at) -> bool:
        """Enter one revocation until ``expires_at`` (seconds since 1970); whether it was not there before.

        One that is there already lives until the later of the two times. Raises ValueError for bytes that are no entry.
        """
        if len(entry) != ENTRY_BYTES:
            raise ValueError(f"an entry has {ENTRY_BYTES} bytes")
        check_entries(entry, 1)
        return self.enter(entry, 1, expiry_of(expires_at)) == 1

    def add_many(self, bytes packed not None, expires_at) -> int:
        """Enter many revocations of one expiry, packed end to end, and return how many were new.

        Raises ValueError, with nothing entered, when any of them is no entry. Of more than a thousand, other threads
        may find some before the rest: they go on meanwhile.
        """
        if len(packed) % ENTRY_BYTES:
            raise ValueError(f"an entry has {ENTRY_BYTES} bytes")
        check_entries(packed, len(packed) // ENTRY_BYTES)
        return self.enter(packed, len(packed) // ENTRY_BYTES, expiry_of(expires_at))

    def discard_expired(self, now) -> int:
        """Forget the entries that expired at ``now`` (seconds since 1970) or before, and return how many there were.

        Cheap when nothing has expired; otherwise every entry is moved, without the GIL. Of two calls at the same time,
        each entry is counted by one.
        """
        cdef Survey survey = Survey(expiry_of(now), False, 0, 0, 0, 0, 0, 0)
        cdef int state = MORE
        cdef size_t forgotten
        while state != DONE:
            with nogil:
                state = self.forget_turn(&survey)
                while state == MORE:
                    state = self.forget_turn(&survey)
            self.give_back()
            if state == NO_MEMORY:
                raise MemoryError
        start_writing()
        forgotten = self.forgotten
        self.forgotten = 0
        stop_writing()
        return forgotten

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
        cdef uint64_t position = 0
        yield from self.entries_from(&position)
        while position:
            yield from self.entries_from(&position)
        yield from self.cutoff_entries()

    def __len__(self):
        cdef size_t total = 0
        cdef int kind
        for kind in range(KIND_SESSION, KIND_ALL + 1):
            total += load_size(&self.counts[kind])
        return total

    def __sizeof__(self):
        cdef size_t total = object.__sizeof__(self)
        cdef Region *region
        start_writing()
        if self.region is not NULL:
            region = self.region
            total += region.bytes
            if region.next is not NULL:  # of each, the part that is filled
                total -= region.moved * sizeof(Line)
                total += sizeof(Line) * (1 + region.next.lines * region.moved // region.lines)
        if self.cutoffs is not NULL:
            total += cutoffs_bytes(self.cutoffs.used)
        stop_writing()
        return total

    def __repr__(self):
        return f"<RevocationTable of {len(self)} entries, epoch {self.epoch}>"

    # Reading.

    cdef inline unsigned long long epoch_now(self) noexcept:
        """The epoch, to be read before `counts` and `find`: what had changed at that epoch is seen by both."""
        return load64(&self.epoch)

    cdef int find(self, const unsigned char *handle16, const unsigned char *digest16, const unsigned char *kid16,
                  const unsigned char *tenant16, long long iat, unsigned int now) noexcept:
        """The kind of entry that refuses this token, or 0. NULL stands for what a token does not have.

        Called with the GIL held; touches no Python object. A caller needs to compute only the targets of kinds that
        ``counts`` says are there. A token without ``iat`` is older than any cutoff: pass -1.
        """
        if load_size(&self.counts[KIND_SESSION]) and handle16 is not NULL and self.holds(KIND_SESSION, handle16, now):
            return KIND_SESSION
        if load_size(&self.counts[KIND_TOKEN]) and digest16 is not NULL and self.holds(KIND_TOKEN, digest16, now):
            return KIND_TOKEN
        if load_size(&self.counts[KIND_KEY]) and kid16 is not NULL and self.holds(KIND_KEY, kid16, now):
            return KIND_KEY
        if load_size(&self.counts[KIND_TENANT]) and tenant16 is not NULL and self.cut(KIND_TENANT, tenant16, iat, now):
            return KIND_TENANT
        if load_size(&self.counts[KIND_ALL]) and self.cut(KIND_ALL, NO_TARGET, iat, now):
            return KIND_ALL
        return 0

    cdef bint holds(self, int kind, const uint8_t *target16, uint32_t now) noexcept:
        cdef Target target
        cdef uint32_t *expiry
        cdef bint found
        cdef fv_guard *guard = fv_enter(self.guards)
        memcpy(&target, target16, sizeof(target))
        expiry = find_expiry(load_region(&self.region), self.hash(kind, &target), kind, &target)
        found = expiry is not NULL and load32(expiry) > now
        fv_leave(guard)
        return found

    cdef bint cut(self, int kind, const uint8_t *target, long long iat, uint32_t now) noexcept:
        cdef uint8_t prefix[17]
        cdef fv_guard *guard
        cdef const Cutoffs *cutoffs
        cdef size_t i
        cdef bint found = False
        prefix[0] = kind
        memcpy(prefix + 1, target, 16)
        guard = fv_enter(self.guards)
        cutoffs = load_cutoffs(&self.cutoffs)
        i = first_cutoff(cutoffs, prefix, sizeof(prefix))
        while not found and cutoffs is not NULL and i < cutoffs.used and (
                memcmp(cutoffs.sorted[i].entry, prefix, sizeof(prefix)) == 0):
            found = load32(&cutoffs.sorted[i].expiry) > now and (
                iat <= <long long>(big_endian(cutoffs.sorted[i].entry + 17) // 1000))
            i += 1
        fv_leave(guard)
        return found

    cdef inline uint64_t hash(self, int kind, const Target *target) noexcept nogil:
        return fv_fold(target.words[0] ^ self.seed[0], target.words[1] ^ self.seed[1] ^ <uint64_t>kind)

    # Writing. All of this is the writer's whose turn it is.

    cdef size_t enter(self, const uint8_t *entries, size_t count, uint32_t expiry) except? -1:
        """Enter checked entries and return how many were new. Many of them, or when slices move, without the GIL."""
        cdef Batch batch = Batch(entries, count, expiry, 0, MOVES_BESIDES)
        cdef int state = MORE
        while state != DONE:
            if count > TURN_WORK or load_flag(&self.growing):
                with nogil:
                    state = self.enter_turn(&batch)
                    while state == MORE:
                        state = self.enter_turn(&batch)
            else:
                batch.moves = 0
                state = self.enter_turn(&batch)
            self.give_back()
            if state == NO_MEMORY:
                raise MemoryError
        return batch.added

    cdef int enter_turn(self, Batch *batch) noexcept nogil:
        cdef int work = TURN_WORK
        cdef int change = SAME
        cdef int state = DONE
        cdef size_t changes = 0
        start_writing()
        while batch.left and work > 0:
            work -= MOVE_WORK if self.is_moving() else 1
            change = self.put(batch.entry, batch.expiry)
            if change == NO_MEMORY:
                break
            changes += change != SAME
            batch.added += change == NEW
            batch.entry += ENTRY_BYTES
            batch.left -= 1
        # Tokens that a cache holds were looked up at an older epoch and now are again. An entry that comes a second
        # time, as every one does that this process made itself, changes no answer and costs nothing.
        store64(&self.epoch, self.epoch + changes)
        while batch.left == 0 and batch.moves and work > 0 and self.is_moving():
            self.move_slice()
            work -= MOVE_WORK
            batch.moves -= 1
        store_flag(&self.growing, self.region is NULL or self.is_moving() or self.crowded())
        if change == NO_MEMORY:
            state = NO_MEMORY
        elif batch.left or batch.moves and self.is_moving():
            state = ENOUGH if self.unseen >= UNSEEN_BYTES else MORE
        stop_writing()
        return state

    cdef int put(self, const uint8_t *entry, uint32_t expiry) noexcept nogil:
        """Enter one entry; of two expiries the later stays."""
        cdef int kind = entry[0]
        cdef int change
        cdef Target target
        if kind >= KIND_TENANT:
            change = self.put_cutoff(entry, expiry)
        else:
            memcpy(&target, entry + 1, sizeof(target))
            change = self.put_target(kind, &target, expiry)
        if change == NEW:
            store_size(&self.counts[kind], self.counts[kind] + 1)
        return change

    cdef int put_target(self, int kind, const Target *target, uint32_t expiry) noexcept nogil:
        cdef uint64_t hash = self.hash(kind, target)
        cdef uint32_t *known = find_expiry(self.region, hash, kind, target)
        if known is not NULL and known[0] >= expiry:
            return SAME
        if self.is_moving():
            self.move_slice()
            known = find_expiry(self.region, hash, kind, target)
        if known is not NULL:
            store32(known, expiry)
            return LATER
        if self.region is NULL or not self.is_moving() and self.crowded():
            if not self.replace_region(self.filled + 1):
                return NO_MEMORY
        self.place(self.region, hash, kind, target, expiry)
        return NEW

    cdef inline bint is_moving(self) noexcept nogil:
        return self.region is not NULL and self.region.next is not NULL

    cdef bint crowded(self) noexcept nogil:
        """Whether one more entry would fill more than three quarters of the region."""
        return 4 * (self.filled + 1) > 3 * LINE_PLACES * self.region.lines

    cdef bint replace_region(self, size_t entries) noexcept nogil:
        """Begin to move to a region for so many entries, and those that come meanwhile; False when out of memory."""
        cdef Region *region
        if self.region is not NULL:
            entries += self.region.lines // self.region.slice
        region = new_region(entries)
        if region is NULL:
            return False
        if self.region is NULL:
            store_region(&self.region, region)
        else:
            self.region.next = region
        self.regions += 1
        self.filled = 0
        return True

    cdef void move_slice(self) noexcept nogil:
        """Move one slice to the next region; after the last, that is the region."""
        cdef Region *region = self.region
        cdef Line *line = lines_of(region) + region.moved
        cdef int place
        for _ in range(region.slice):
            for place in range(LINE_PLACES):
                if line.kinds[place] == 0:
                    break
                if line.expiries[place] > self.expired:
                    self.place(region.next, self.hash(line.kinds[place], &line.targets[place]), line.kinds[place],
                               &line.targets[place], line.expiries[place])
                else:
                    store_size(&self.counts[line.kinds[place]], self.counts[line.kinds[place]] - 1)
                    self.forgotten += 1
            line += 1
        store_size(&self.unseen, self.unseen + region.slice * sizeof(Line))
        store_size(&region.moved, region.moved + region.slice)
        if region.moved == region.lines:
            self.expired = 0
            store_region(&self.region, region.next)
            self.leave_behind(region)
            if self.filled == 0:
                region = self.region
                store_region(&self.region, NULL)
                self.leave_behind(region)

    cdef void place(self, Region *region, uint64_t hash, int kind, const Target *target,
                    uint32_t expiry) noexcept nogil:
        """Put an entry that is not there in its place: the kind last, for a reader may come at any moment."""
        cdef size_t at = 0
        cdef Line *line
        cdef int i
        self.soonest = min(self.soonest, expiry)
        region = region_of(region, hash, &at)
        self.filled += region.next is NULL
        while True:
            line = lines_of(region) + at
            for i in range(LINE_PLACES):
                if line.kinds[i] == 0:
                    store_word(&line.targets[i].words[0], target.words[0])
                    store_word(&line.targets[i].words[1], target.words[1])
                    store32(&line.expiries[i], expiry)
                    store8(&line.kinds[i], kind)
                    return
            store8(&line.passed, line.passed | mark_of(hash))
            at = line_after(region, at)

    cdef void leave_behind(self, Region *region) noexcept nogil:
        region.behind = self.regions_behind
        self.regions_behind = region

    cdef int put_cutoff(self, const uint8_t *entry, uint32_t expiry) noexcept nogil:
        cdef Cutoffs *old = self.cutoffs
        cdef Cutoffs *new
        cdef size_t used = 0 if old is NULL else old.used
        cdef size_t at = first_cutoff(old, entry, ENTRY_BYTES)
        if at < used and memcmp(old.sorted[at].entry, entry, ENTRY_BYTES) == 0:
            if old.sorted[at].expiry >= expiry:
                return SAME
            store32(&old.sorted[at].expiry, expiry)
            return LATER
        new = <Cutoffs *>malloc(cutoffs_bytes(used + 1))
        if new is NULL:
            return NO_MEMORY
        if used:
            memcpy(new.sorted, old.sorted, at * sizeof(Cutoff))
            memcpy(new.sorted + at + 1, old.sorted + at, (used - at) * sizeof(Cutoff))
        memcpy(new.sorted[at].entry, entry, ENTRY_BYTES)
        new.sorted[at].expiry = expiry
        new.used = used + 1
        self.replace_cutoffs(new)
        return NEW

    cdef void replace_cutoffs(self, Cutoffs *new) noexcept nogil:
        cdef Cutoffs *old = self.cutoffs
        store_cutoffs(&self.cutoffs, new)
        if old is not NULL:
            store_size(&self.unseen, self.unseen + cutoffs_bytes(old.used))
            old.behind = self.cutoffs_behind
            self.cutoffs_behind = old

    # Forgetting.

    cdef int forget_turn(self, Survey *survey) noexcept nogil:
        cdef int state = MORE
        cdef int work = TURN_WORK
        start_writing()
        if not self.forget_cutoffs(survey.instant):
            state = NO_MEMORY
        while state == MORE and work > 0:
            work -= MOVE_WORK
            state = self.forget_slice(survey)
        store_flag(&self.growing, self.region is NULL or self.is_moving() or self.crowded())
        if state == MORE and self.unseen >= UNSEEN_BYTES:
            state = ENOUGH
        stop_writing()
        return state

    cdef int forget_slice(self, Survey *survey) noexcept nogil:
        """Survey a slice; after the last, begin to move to a region for what is to be kept; then move a slice."""
        if self.region is NULL or (self.expired == 0 if survey.complete else self.soonest > survey.instant):
            return DONE
        if self.is_moving():
            self.move_slice()
        elif survey.region != self.regions:
            survey[0] = Survey(survey.instant, False, self.regions, 0, self.epoch, 0, 0, NEVER_EXPIRES)
        elif survey.lines < self.region.lines:
            survey_slice(survey, lines_of(self.region) + survey.lines, self.region.slice)
        elif survey.gone:
            # Of what was added or prolonged meanwhile, nothing is known but its number.
            if not self.replace_region(survey.kept + (self.epoch - survey.epoch)):
                return NO_MEMORY
            self.expired = survey.instant
            self.soonest = NEVER_EXPIRES
            survey.complete = True
        else:
            if self.epoch == survey.epoch:
                self.soonest = survey.soonest
            survey.complete = True
        return MORE

    cdef bint forget_cutoffs(self, uint32_t instant) noexcept nogil:
        cdef Cutoffs *old = self.cutoffs
        cdef Cutoffs *new = NULL
        cdef size_t kept = 0
        cdef size_t i
        if old is NULL:
            return True
        for i in range(old.used):
            kept += old.sorted[i].expiry > instant
        if kept == old.used:
            return True
        if kept:
            new = <Cutoffs *>malloc(cutoffs_bytes(kept))
            if new is NULL:
                return False
            new.used = 0
        for i in range(old.used):
            if old.sorted[i].expiry > instant:
                new.sorted[new.used] = old.sorted[i]
                new.used += 1
            else:
                store_size(&self.counts[old.sorted[i].entry[0]], self.counts[old.sorted[i].entry[0]] - 1)
        self.forgotten += old.used - kept
        self.replace_cutoffs(new)
        return True

    cdef void give_back(self) noexcept:
        """Free what was left behind. The GIL is held here: that, or passing all guards, shows that nobody reads it."""
        cdef Region *regions
        cdef Cutoffs *cutoffs
        cdef size_t start = 0
        cdef size_t end = 0
        if load_size(&self.unseen) == 0:
            return
        start_writing()
        regions = self.regions_behind
        cutoffs = self.cutoffs_behind
        self.regions_behind = NULL
        self.cutoffs_behind = NULL
        store_size(&self.unseen, 0)
        if self.is_moving():
            start = self.region.given_back
            end = <size_t>(lines_of(self.region) + self.region.moved) // GRANULE * GRANULE
            self.region.given_back = max(start, end)
        stop_writing()
        if regions is NULL and cutoffs is NULL and end <= start:
            return
        fv_pass(self.guards)
        with nogil:
            if end > start:
                munmap(<void *>start, end - start)
            free_regions(regions)
            free_cutoffs(cutoffs)

    # Listing. Making Python objects may set off the garbage collector, and with it code of anybody's that adds to this
    # very table: the memory is first copied into bytes, the making of which sets off nothing.

    cdef list entries_from(self, uint64_t *position):
        """The entries of one slice from this hash on; the position becomes that of the next ones, 0 at the end."""
        cdef uint64_t first = position[0]
        cdef uint64_t last = <uint64_t>-1
        cdef size_t start = 0
        cdef Region *region
        cdef bytes copy = b""
        start_writing()
        try:
            if self.region is not NULL:
                region = region_of(self.region, first, &start)
                start -= start % region.slice
                last = fv_edge(start + region.slice, region.lines) - 1
                if region is not self.region:  # of which the rest is still where it was
                    last = min(last, fv_edge(self.region.moved, self.region.lines) - 1)
                copy = (<const char *>(lines_of(region) + start))[:region.slice * sizeof(Line)]
            position[0] = last + 1
        finally:
            stop_writing()
        return self.entries_in(copy, first, last)

    cdef list entries_in(self, bytes copy, uint64_t first, uint64_t last):
        cdef const Line *line = <const Line *><const char *>copy
        cdef int place
        cdef list found = []
        for _ in range(<size_t>len(copy) // sizeof(Line)):
            for place in range(LINE_PLACES):
                if line.kinds[place] and first <= self.hash(line.kinds[place], &line.targets[place]) <= last:
                    target = (<const char *>&line.targets[place])[:sizeof(Target)]
                    found.append((bytes((line.kinds[place],)) + target + bytes(8), line.expiries[place]))
            line += 1
        return found

    cdef list cutoff_entries(self):
        cdef bytes copy = b""
        cdef const Cutoff *cutoff
        start_writing()
        try:
            if self.cutoffs is not NULL:
                copy = (<const char *>self.cutoffs.sorted)[:self.cutoffs.used * sizeof(Cutoff)]
        finally:
            stop_writing()
        cutoff = <const Cutoff *><const char *>copy
        return [
            ((<const char *>cutoff[i].entry)[:ENTRY_BYTES], cutoff[i].expiry)
            for i in range(<size_t>len(copy) // sizeof(Cutoff))
        ]


cdef uint8_t NO_TARGET[16]


cdef const uint8_t *target_of(bytes target) noexcept:
    if target is None:
        return NULL
    return target


cdef inline uint64_t big_endian(const uint8_t *bytes8) noexcept nogil:
    cdef uint64_t number = 0
    cdef int i
    for i in range(8):
        number = number << 8 | bytes8[i]
    return number


# Regions.

cdef Region *new_region(size_t entries) noexcept nogil:
    """An empty region for so many entries at a load of 61 per cent."""
    cdef size_t lines = max(entries * 6 // 11 + 1, <size_t>LEAST_LINES)
    cdef size_t slices = (lines + SLICE_LINES - 1) // SLICE_LINES
    cdef size_t slice = (lines + slices - 1) // slices
    cdef size_t bytes = (1 + slices * slice) * sizeof(Line)
    cdef Region *region = <Region *>fv_map(bytes)
    if region is not NULL:
        region.bytes = bytes
        region.lines = slices * slice
        region.slice = slice
        region.given_back = (<size_t>region // GRANULE + 1) * GRANULE
    return region


cdef void free_regions(Region *region) noexcept nogil:
    """Free a list of regions, but for what of each was given back before."""
    cdef Region *behind
    cdef size_t end
    while region is not NULL:
        behind = region.behind
        end = <size_t>region + region.bytes
        if region.given_back < end:
            munmap(<void *>region.given_back, end - region.given_back)
        munmap(region, min(region.bytes, GRANULE - <size_t>region % GRANULE))
        region = behind


cdef inline Line *lines_of(Region *region) noexcept nogil:
    return <Line *>region + 1


cdef inline Region *region_of(Region *region, uint64_t hash, size_t *home) noexcept nogil:
    """The region that holds whatever has this hash, and its home line there: the hash scaled to the number of lines."""
    home[0] = fv_scale(hash, region.lines)
    while home[0] < load_size(&region.moved):
        region = region.next
        home[0] = fv_scale(hash, region.lines)
    return region


cdef inline size_t line_after(Region *region, size_t line) noexcept nogil:
    """The next one, or after the last of its slice the first."""
    line += 1
    return line if line % region.slice else line - region.slice


cdef inline uint8_t mark_of(uint64_t hash) noexcept nogil:
    """One bit, by hash bits that do not choose the home."""
    return 1 << (hash & 7)


cdef inline uint32_t *find_expiry(Region *region, uint64_t hash, int kind, const Target *target) noexcept nogil:
    """The expiry of an entry, or NULL."""
    cdef size_t at = 0
    cdef Line *line
    if region is NULL:
        return NULL
    region = region_of(region, hash, &at)
    line = lines_of(region) + at
    # What is absent is mostly so at first sight. First words alone, and all at once: which places are filled is chance,
    # and no branch is to depend on it.
    if not (may_be_in(line, 0, target) | may_be_in(line, 1, target) | may_be_in(line, 2, target)
            | load8(&line.passed) & mark_of(hash)):
        return NULL
    return search(region, at, hash, kind, target)


cdef uint32_t *search(Region *region, size_t at, uint64_t hash, int kind, const Target *target) noexcept nogil:
    """The same from this line on. A line that has room bears no mark, so it ends."""
    cdef Line *line
    cdef int place
    while True:
        line = lines_of(region) + at
        for place in range(LINE_PLACES):
            if load8(&line.kinds[place]) == kind and is_in(line, place, target):
                return &line.expiries[place]
        if not load8(&line.passed) & mark_of(hash):
            return NULL
        at = line_after(region, at)


cdef inline bint may_be_in(const Line *line, int place, const Target *target) noexcept nogil:
    return load_word(&line.targets[place].words[0]) == target.words[0]


cdef inline bint is_in(const Line *line, int place, const Target *target) noexcept nogil:
    """Of a place that has a kind."""
    return may_be_in(line, place, target) and load_word(&line.targets[place].words[1]) == target.words[1]


cdef void survey_slice(Survey *survey, const Line *line, size_t lines) noexcept nogil:
    cdef int place
    for _ in range(lines):
        for place in range(LINE_PLACES):
            if line.kinds[place]:
                if line.expiries[place] > survey.instant:
                    survey.kept += 1
                else:
                    survey.gone += 1
                survey.soonest = min(survey.soonest, line.expiries[place])
        line += 1
    survey.lines += lines


# Cutoffs.

cdef inline size_t cutoffs_bytes(size_t count) noexcept nogil:
    return sizeof(Cutoffs) + count * sizeof(Cutoff)


cdef void free_cutoffs(Cutoffs *cutoffs) noexcept nogil:
    cdef Cutoffs *behind
    while cutoffs is not NULL:
        behind = cutoffs.behind
        free(cutoffs)
        cutoffs = behind


cdef size_t first_cutoff(const Cutoffs *cutoffs, const uint8_t *prefix, size_t length) noexcept nogil:
    """Where the first cutoff that does not sort before these bytes is."""
    cdef size_t low = 0
    cdef size_t high = 0 if cutoffs is NULL else cutoffs.used
    cdef size_t middle
    while low < high:
        middle = (low + high) // 2
        if memcmp(cutoffs.sorted[middle].entry, prefix, length) < 0:
            low = middle + 1
        else:
            high = middle
    return low


# What is given.

cdef uint32_t expiry_of(seconds) except? 0xFFFFFFFFU:
    """An instant in the 32 bits that the table keeps: until the year 2106."""
    if not 0 < seconds < 0xFFFFFFFF:
        raise ValueError("an instant is in seconds since 1970, before 2106")
    return <uint32_t>seconds


cdef int check_entries(const uint8_t *entry, size_t count) except -1:
    cdef size_t good
    if count > TURN_WORK:
        with nogil:
            good = good_entries(entry, count)
    else:
        good = good_entries(entry, count)
    if good == count:
        return 0
    entry += good * ENTRY_BYTES
    if not KIND_SESSION <= entry[0] <= KIND_ALL:
        raise ValueError(f"there is no revocation of kind {entry[0]}")
    if entry[0] < KIND_TENANT:
        raise ValueError("only tenant and all entries have a cutoff")
    raise ValueError("an entry for all has no target")


cdef size_t good_entries(const uint8_t *entry, size_t count) noexcept nogil:
    """How many there are before the first that is none."""
    cdef size_t good = 0
    while good < count and is_entry(entry):
        entry += ENTRY_BYTES
        good += 1
    return good


cdef inline bint is_entry(const uint8_t *entry) noexcept nogil:
    if entry[0] < KIND_TENANT:
        return entry[0] >= KIND_SESSION and big_endian(entry + 17) == 0
    return entry[0] == KIND_TENANT or entry[0] == KIND_ALL and memcmp(entry + 1, NO_TARGET, 16) == 0
