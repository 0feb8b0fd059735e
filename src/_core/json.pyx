# Strict JSON (RFC 8259): one pass without the GIL. scan() decides alone what is accepted: UTF-8 without byte order
# mark, one object at the top, no member name twice in one object (names are compared after unescaping), no lone
# surrogates, at most 8 levels, 128 members an object and 4 KiB a string or number, no number that a double cannot hold
# except integers, which stay exact. On its way it notes where the members that the core must read itself lie.

from libc.string cimport memcmp, memset

cdef enum Names:
    NO_NAMES
    CLAIM_NAMES
    HEADER_NAMES

# The members that scan() notes. Header members from CRIT on make a token unsupported, whatever their value.
cdef enum:
    ISS, SUB, AUD, EXP, NBF, IAT, JTI, TENANT, HANDLE
    WHOLE  # the top object; its flags say how many members it has
    CLAIMS_NOTED
cdef enum:
    ALG, KID, TYP_MEMBER
    CRIT, B64, ZIP, JWK, JKU, X5U, X5C, ENC
    HEADER_NOTED

cdef tuple CLAIM_MEMBERS = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "tId", "sessionHandle")
cdef tuple HEADER_MEMBERS = ("alg", "kid", "typ", "crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc")

cdef struct Member:
    unsigned short start  # of the value, quotes and brackets included
    unsigned short size
    unsigned char kind
    unsigned char flags

cdef struct Seen:  # the name of a member of an object that is still open
    unsigned long long head
    unsigned int start
    unsigned short size
    unsigned short flags

cdef struct Level:  # an array or object that is still open
    unsigned long long filter  # one bit for each name; a clear bit says that the name is new
    int first  # index of its first name among Scanner.seen
    bint is_object

cdef struct Scanner:
    const unsigned char *text
    Names names
    int error
    int depth
    int count
    Level levels[MAX_DEPTH]
    Seen seen[MAX_DEPTH * MAX_MEMBERS]


# The number of a name of three letters.
cdef inline unsigned int letters(unsigned char a, unsigned char b, unsigned char c) noexcept nogil:
    return a | <unsigned int>b << 8 | <unsigned int>c << 16


cdef int noted_name(Names names, const unsigned char *name, size_t size) noexcept nogil:
    """Index of a member that is noted, or -1. Names are compared with their lengths: "alg\\0" is not "alg"."""
    cdef unsigned int three
    if size == 3:
        three = letters(name[0], name[1], name[2])
        if names == CLAIM_NAMES:
            if three == letters(c"i", c"s", c"s"):
                return ISS
            if three == letters(c"s", c"u", c"b"):
                return SUB
            if three == letters(c"a", c"u", c"d"):
                return AUD
            if three == letters(c"e", c"x", c"p"):
                return EXP
            if three == letters(c"n", c"b", c"f"):
                return NBF
            if three == letters(c"i", c"a", c"t"):
                return IAT
            if three == letters(c"j", c"t", c"i"):
                return JTI
            if three == letters(c"t", c"I", c"d"):
                return TENANT
        elif names == HEADER_NAMES:
            if three == letters(c"a", c"l", c"g"):
                return ALG
            if three == letters(c"k", c"i", c"d"):
                return KID
            if three == letters(c"t", c"y", c"p"):
                return TYP_MEMBER
            if three == letters(c"b", c"6", c"4"):
                return B64
            if three == letters(c"z", c"i", c"p"):
                return ZIP
            if three == letters(c"j", c"w", c"k"):
                return JWK
            if three == letters(c"j", c"k", c"u"):
                return JKU
            if three == letters(c"x", c"5", c"u"):
                return X5U
            if three == letters(c"x", c"5", c"c"):
                return X5C
            if three == letters(c"e", c"n", c"c"):
                return ENC
    elif names == CLAIM_NAMES and size == 13 and memcmp(name, b"sessionHandle", 13) == 0:
        return HANDLE
    elif names == HEADER_NAMES and size == 4 and memcmp(name, b"crit", 4) == 0:
        return CRIT
    return -1


cdef bint same_name(const unsigned char *text, const Seen *a, const Seen *b) noexcept nogil:
    """Whether two names of equal head are equal, after unescaping where one has escapes."""
    cdef unsigned char plain_a[MAX_STRING]
    cdef unsigned char plain_b[MAX_STRING]
    cdef size_t size_a, size_b
    if not (a.flags | b.flags) & ESCAPES:
        return a.size == b.size and memcmp(text + a.start, text + b.start, a.size) == 0
    size_a = unescape(text + a.start, a.size, plain_a)
    size_b = unescape(text + b.start, b.size, plain_b)
    return size_a == size_b and memcmp(plain_a, plain_b, size_a) == 0


cdef int escaped_name(Scanner *s, const unsigned char *name, Seen *entry) noexcept nogil:
    """The head of a name that has escapes, and its index if it is noted: "\\u0065xp" is "exp"."""
    cdef unsigned char plain[MAX_STRING + 8]
    cdef size_t size = unescape(name, entry.size, plain)
    entry.head = fv_name_head(plain, size)
    return noted_name(s.names, plain, size) if s.depth == 1 else -1


cdef inline const unsigned char *member_name(Scanner *s, const unsigned char *p, int *noted) noexcept nogil:
    """Read a member's name and colon at p; returns where the value starts, or NULL."""
    cdef Level *level = &s.levels[s.depth - 1]
    cdef Seen *entry
    cdef const unsigned char *begin
    cdef unsigned long long bit
    cdef int i, flags
    s.error = JSON_SYNTAX
    if p[0] != c'"':
        return NULL
    begin = p + 1
    p = string_end(begin, &flags, &s.error)
    if p == NULL:
        return NULL
    if s.count - level.first == MAX_MEMBERS:
        s.error = MEMBERS
        return NULL
    entry = &s.seen[s.count]
    entry.start = <unsigned int>(begin - s.text)
    entry.size = <unsigned short>(p - begin)
    entry.flags = <unsigned short>flags
    if flags & ESCAPES:
        noted[0] = escaped_name(s, begin, entry)
    else:
        entry.head = fv_name_head(begin, entry.size)
        noted[0] = noted_name(s.names, begin, entry.size) if s.depth == 1 else -1
    bit = 1ULL << (fv_mix(entry.head) >> 58)
    if level.filter & bit:
        for i in range(level.first, s.count):
            if s.seen[i].head == entry.head and same_name(s.text, &s.seen[i], entry):
                s.error = DUPLICATE_MEMBER
                return NULL
    level.filter |= bit
    s.count += 1
    p = skip_blanks(p + 1)
    if p[0] != c":":
        s.error = JSON_SYNTAX
        return NULL
    return skip_blanks(p + 1)


cdef int scan(const unsigned char *text, size_t size, Names names, Member *found) noexcept nogil:
    """Accept or refuse the document of `size` bytes at `text`; returns a Refusal.

    `found` has room for the members that `names` notes, and is filled in for those of the top object.
    """
    cdef Scanner s
    cdef Level *level
    cdef const unsigned char *p = skip_blanks(text)
    cdef const unsigned char *begin
    cdef int noted = -1, outer = -1, flags
    cdef unsigned short outer_start = 0
    cdef Kind kind
    cdef unsigned char opening
    if p[0] != c"{":
        return NOT_OBJECT
    if names == CLAIM_NAMES:
        memset(found, 0, CLAIMS_NOTED * sizeof(Member))
    elif names == HEADER_NAMES:
        memset(found, 0, HEADER_NOTED * sizeof(Member))
    s.text = text
    s.names = names
    s.error = FINE
    s.depth = 0
    s.count = 0
    while True:
        # A value starts at p; if it belongs to a noted member, that is its index.
        begin = p
        flags = 0
        opening = p[0]
        if opening == c'"':
            kind = STRING
            p = string_end(p + 1, &flags, &s.error)
            if p == NULL:
                return s.error
            p += 1
        elif opening == c"{" or opening == c"[":
            kind = CONTAINER
            if s.depth == MAX_DEPTH:
                return DEPTH
            level = &s.levels[s.depth]
            level.filter = 0
            level.first = s.count
            level.is_object = opening == c"{"
            p = skip_blanks(p + 1)
            if p[0] != opening + 2:  # "{" + 2 is "}", "[" + 2 is "]"
                if s.depth == 1:
                    outer = noted
                    outer_start = <unsigned short>(begin - text)
                s.depth += 1
                noted = -1
                if level.is_object:
                    p = member_name(&s, p, &noted)
                    if p == NULL:
                        return s.error
                continue
            p += 1
        elif opening == c"-" or is_digit(opening):
            p = number_end(p, &kind, &s.error)
            if p == NULL:
                return s.error
        else:
            kind = LITERAL
            if memcmp(p, b"true", 4) == 0 or memcmp(p, b"null", 4) == 0:
                p += 4
            elif memcmp(p, b"false", 5) == 0:
                p += 5
            else:
                return JSON_SYNTAX
        if noted >= 0:
            found[noted].start = <unsigned short>(begin - text)
            found[noted].size = <unsigned short>(p - begin)
            found[noted].kind = kind
            found[noted].flags = <unsigned char>flags

        # A value has ended at p: close what closes here, up to the comma before the next one.
        while s.depth:
            p = skip_blanks(p)
            level = &s.levels[s.depth - 1]
            if p[0] == c",":
                p = skip_blanks(p + 1)
                noted = -1
                if level.is_object:
                    p = member_name(&s, p, &noted)
                    if p == NULL:
                        return s.error
                break
            if p[0] != (c"}" if level.is_object else c"]"):
                return JSON_SYNTAX
            p += 1
            if s.depth == 1 and names == CLAIM_NAMES:
                found[WHOLE].size = <unsigned short>(p - text)
                found[WHOLE].kind = CONTAINER
                found[WHOLE].flags = <unsigned char>s.count
            s.count = level.first
            s.depth -= 1
            if s.depth == 1 and outer >= 0:
                found[outer].start = outer_start
                found[outer].size = <unsigned short>(p - text - outer_start)
                found[outer].kind = CONTAINER
                outer = -1
        else:
            p = skip_blanks(p)
            return FINE if p == text + size else TRAILING_DATA
