# JWS compact serialization (RFC 7515 sections 3.1 and 7.1) up to the signature.
#
# The order is fixed: size, dots, strict base64url of all three parts, header, allow-list, key by kid and alg,
# signature. Nothing in a token chooses an algorithm: a key is bound to one, and the header must name it.
#
# Headers repeat: one signer puts the same first segment on every token. A KeyRing therefore remembers the segments of
# tokens whose signature has passed, each with the key that it led to, and the next token's header is one memcmp. Only
# after the signature, and only HEADERS_KEPT of them: nobody but a signer can put anything there.

cimport cython
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from cpython.ref cimport PyObject
from libc.string cimport memchr, memcmp, memcpy, memmove, memset

cdef enum:
    MAX_TOKEN = 16384  # hard limit; the default of max_token_bytes is half of it
    DEFAULT_MAX_TOKEN = 8192
    MAX_PAYLOAD = 12288  # what that many characters can hold
    MAX_HEADER = 1024
    MAX_SIGNATURE = 1024  # RSA of 8192 bits
    MAX_SEGMENT = 1366  # characters of the base64url of 1024 bytes
    MAX_ALG = 16
    MAX_TYP = 64
    HEADERS_KEPT = 16

cdef struct Compact:
    const unsigned char *text
    size_t size
    size_t header_size  # of the segment
    size_t signing_size  # of both segments and the dot between them
    size_t payload_size  # of the decoded payload
    size_t signature_size  # of the decoded signature
    unsigned char signature[MAX_SIGNATURE + 2 + BASE64URL_SLACK]
    unsigned char payload[MAX_PAYLOAD + JSON_PAD]

cdef struct Text:  # a short string of the header, unescaped
    int size  # -1: absent
    unsigned char bytes[MAX_KEY_ID]

cdef struct Header:
    Text alg
    Text kid
    Text typ
    int unsupported  # the member that makes it so, or -1


cdef int split(const unsigned char *text, size_t size, size_t limit, Compact *c) noexcept nogil:
    """Find the three parts; returns a Refusal."""
    cdef const unsigned char *end = text + size
    cdef const unsigned char *first
    cdef const unsigned char *second
    cdef const unsigned char *third
    if size > limit:
        return TOO_LARGE
    first = <const unsigned char *>memchr(text, c".", size)
    if first == NULL:
        return PARTS
    second = <const unsigned char *>memchr(first + 1, c".", end - first - 1)
    if second == NULL:
        return PARTS
    third = <const unsigned char *>memchr(second + 1, c".", end - second - 1)
    if third != NULL:
        return FIVE_PARTS if dots(third + 1, end) == 1 else PARTS
    if first == text or second + 1 == end:
        return EMPTY_PART
    c.text = text
    c.size = size
    c.header_size = first - text
    c.signing_size = second - text
    if c.header_size > MAX_SEGMENT:
        return HEADER_TOO_LARGE
    if end - second - 1 > MAX_SEGMENT:
        return SIGNATURE_TOO_LARGE
    return FINE


cdef inline int decode(Compact *c) noexcept nogil:
    """Decode signature and payload of a token that was split; returns a Refusal."""
    cdef Py_ssize_t decoded
    decoded = base64url_decode(c.text + c.signing_size + 1, c.size - c.signing_size - 1, c.signature)
    if decoded < 0:
        return BASE64URL
    c.signature_size = decoded
    decoded = base64url_decode(c.text + c.header_size + 1, c.signing_size - c.header_size - 1, c.payload)
    if decoded < 0:
        return BASE64URL
    c.payload_size = decoded
    memset(c.payload + decoded, 0, JSON_PAD)
    return FINE


cdef int dots(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """How many dots there are, up to two."""
    cdef int count = 0
    while count < 2:
        p = <const unsigned char *>memchr(p, c".", end - p)
        if p == NULL:
            break
        p += 1
        count += 1
    return count


cdef inline bint short_text(const unsigned char *document, const Member *member, int limit, Text *out) noexcept nogil:
    """Unescape a string member; False if it is something else or longer than `limit` bytes."""
    cdef unsigned char plain[MAX_STRING]
    cdef size_t size
    out.size = -1
    if member.kind == ABSENT:
        return True
    if member.kind != STRING:
        return False
    size = unescape(document + member.start + 1, member.size - 2, plain)
    if size > <size_t>limit:
        return False
    memcpy(out.bytes, plain, size)
    out.size = <int>size
    return True


cdef int read_header(const unsigned char *segment, size_t size, Header *header) noexcept nogil:
    """Decode and parse a protected header (RFC 7515 section 4.1); returns a Refusal."""
    cdef unsigned char document[MAX_HEADER + JSON_PAD]
    cdef Member found[HEADER_NOTED]
    cdef Py_ssize_t decoded
    cdef int code, i
    header.unsupported = -1
    decoded = base64url_decode(segment, size, document)
    if decoded < 0:
        return BASE64URL
    memset(document + decoded, 0, JSON_PAD)
    code = scan(document, decoded, HEADER_NAMES, found)
    if code != FINE:
        return code
    # Parameters that change what is verified or point to keys elsewhere: refused whatever their value (RFC 8725 section
    # 3).
    for i in range(CRIT, HEADER_NOTED):
        if found[i].kind != ABSENT:
            header.unsupported = i
            return ALGORITHM
    if found[ALG].kind != STRING:
        return ALG_MALFORMED
    if not short_text(document, &found[ALG], MAX_ALG, &header.alg):
        return ALGORITHM
    if not short_text(document, &found[KID], MAX_KEY_ID, &header.kid):
        return KID_MALFORMED
    if found[TYP_MEMBER].kind != ABSENT and found[TYP_MEMBER].kind != STRING:
        return TYP_MALFORMED
    if not short_text(document, &found[TYP_MEMBER], MAX_TYP, &header.typ):
        header.typ.size = 0  # longer than any that is configured; an empty one never matches
    return FINE


cdef object header_refusal(int code, const Header *header):
    if header.unsupported >= 0:
        name = HEADER_MEMBERS[header.unsupported]
        return UnsupportedToken(f"protected header: {name} is not accepted", reason=name)
    return refusal(code, "protected header")


cdef Py_ssize_t media_type(unsigned char *text, Py_ssize_t size) noexcept nogil:
    """Bring a typ into comparable form: lower case, without "application/" (RFC 7515 section 4.1.9)."""
    cdef Py_ssize_t i
    for i in range(size):
        if c"A" <= text[i] <= c"Z":
            text[i] |= 0x20
    if size > 12 and memcmp(text, b"application/", 12) == 0 and memchr(text + 12, c"/", size - 12) == NULL:
        memmove(text, text + 12, size - 12)
        return size - 12
    return size


# --- keys ---

cdef struct Slot:  # one key as tokens name it
    PyObject *key
    Algorithm number
    const char *kid
    Py_ssize_t kid_size  # -1: the key has none

cdef struct KeptHeader:
    unsigned char *segment
    size_t size
    Slot *slot
    bint typed  # its typ is one of those that the policy allows

cdef struct Choice:  # what a header led to
    PyObject *key  # the ring's reference
    Slot *slot  # set where the header was not known
    bint typed
    bint known


@cython.final
@cython.internal
cdef class KeyRing:
    """The keys of a verifier at one time, and the headers that were seen to lead to them. Replaced as a whole."""

    cdef tuple keys
    cdef Slot *slots
    cdef int count
    cdef KeptHeader kept[HEADERS_KEPT]
    cdef int kept_next  # the place that the next header takes

    def __cinit__(self, tuple keys):
        cdef Slot *slot
        cdef Key key
        self.keys = keys
        self.slots = <Slot *>PyMem_Calloc(len(keys) or 1, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        for key in keys:
            slot = &self.slots[self.count]
            slot.key = <PyObject *>key
            slot.number = key.number
            slot.kid_size = -1
            if key.key_id is not None:
                slot.kid = PyUnicode_AsUTF8AndSize(key.key_id, &slot.kid_size)
            self.count += 1

    def __dealloc__(self):
        cdef int i
        for i in range(HEADERS_KEPT):
            PyMem_Free(self.kept[i].segment)
        PyMem_Free(self.slots)

    cdef inline bint known_header(self, const unsigned char *segment, size_t size, Choice *choice) noexcept:
        cdef KeptHeader *kept
        cdef bint found = False
        cdef int i
        with cython.critical_section(self):
            for i in range(HEADERS_KEPT):
                kept = &self.kept[i]
                if kept.size == size and memcmp(kept.segment, segment, size) == 0:
                    choice.key = kept.slot.key
                    choice.typed = kept.typed
                    found = True
                    break
        return found

    cdef int keep_header(self, const Compact *compact, const Choice *choice) except -1:
        """Remember a header whose token's signature has passed."""
        cdef KeptHeader *kept
        cdef unsigned char *copy
        cdef Choice other
        if choice.known or self.known_header(compact.text, compact.header_size, &other):  # another thread was faster
            return 0
        copy = <unsigned char *>PyMem_Malloc(compact.header_size)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, compact.text, compact.header_size)
        with cython.critical_section(self):
            kept = &self.kept[self.kept_next]
            self.kept_next = (self.kept_next + 1) % HEADERS_KEPT
            PyMem_Free(kept.segment)
            kept.segment = copy
            kept.size = compact.header_size
            kept.slot = choice.slot
            kept.typed = choice.typed
        return 0

    cdef int place_of(self, PyObject *key) noexcept:
        """Where in the slots a key is, or -1."""
        cdef int i
        for i in range(self.count):
            if self.slots[i].key == key:
                return i
        return -1

    cdef inline bint holds(self, Key key) noexcept:
        return self.place_of(<PyObject *>key) >= 0

    cdef int choose(self, Compact *compact, tuple types, bint typed, Choice *choice) except -1:
        """The key that the header means. With `typed`, the header's typ must be one of `types`."""
        cdef Header header
        cdef int code
        choice.known = self.known_header(compact.text, compact.header_size, choice)
        if not choice.known:
            code = decode(compact)  # a header that nobody has vouched for is not read before the rest is base64url
            if code != FINE:
                raise refusal(code, "token")
            code = read_header(compact.text, compact.header_size, &header)
            if code == FINE:
                code = self.match(&header, &choice.slot)
            if code != FINE:
                raise header_refusal(code, &header)
            choice.key = choice.slot.key
            choice.typed = type_matches(&header.typ, types)
        if typed and not choice.typed:
            raise claim_refusal("typ", "mismatch", "is missing or of another kind of token")
        return 0

    cdef int match(self, const Header *header, Slot **chosen) noexcept:
        """The one key that a header may mean; returns a Refusal."""
        cdef Algorithm number = algorithm_number(<const char *>header.alg.bytes, header.alg.size)
        cdef Slot *slot
        cdef bint allowed = False, named = False
        cdef int i, matches = 0
        if number == ALG_NONE:
            return ALGORITHM
        for i in range(self.count):
            slot = &self.slots[i]
            allowed |= slot.number == number
            if header.kid.size < 0:
                if slot.number == number:
                    chosen[0] = slot
                    matches += 1
            elif slot.kid_size == header.kid.size and memcmp(slot.kid, header.kid.bytes, header.kid.size) == 0:
                named = True
                if slot.number == number:
                    chosen[0] = slot
                    return FINE
        # A kid that belongs to a key of another algorithm is no unknown key: asking for newer keys would not help.
        if not allowed or named:
            return ALGORITHM
        if header.kid.size >= 0:
            return UNKNOWN_KEY
        return FINE if matches == 1 else KID_MISSING


cdef bint type_matches(Text *typ, tuple types) noexcept:
    """Whether a header's typ is one of the configured ones, which are in comparable form."""
    cdef bytes allowed
    cdef Py_ssize_t size
    if typ.size <= 0:
        return False
    size = media_type(typ.bytes, typ.size)
    for allowed in types:
        if len(allowed) == size and memcmp(<const char *>allowed, typ.bytes, size) == 0:
            return True
    return False
