# Strict JSON (RFC 8259), in two steps.
#
# scan() makes one pass without the GIL. It decides alone what is accepted: UTF-8 without byte order mark, one object at
# the top, no member name twice in one object (names are compared after unescaping), no lone surrogates, at most 8
# levels, 128 members an object and 4 KiB a string or number, no number that a double cannot hold except integers, which
# stay exact. On its way it notes where the members that the core must read itself lie.
#
# build() and find() make Python objects out of a scanned document, when somebody asks, and check nothing again.
#
# A document is followed by JSON_PAD zero bytes. The zero ends every loop, since no grammar rule accepts it (control
# characters are refused inside strings), so that no loop compares against the end; and strings are read 16 bytes at a
# time.

cimport cython
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_Append
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    """
    #if defined(__SSE2__)
    #include <emmintrin.h>
    #endif

    /* The first byte at or after p that is a quote, a backslash, a control character or not ASCII. */
    static inline const unsigned char *fv_plain_end(const unsigned char *p) {
    #if defined(__SSE2__)
        const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\\\'), space = _mm_set1_epi8(' ');
        for (;; p += 16) {
            __m128i bytes = _mm_loadu_si128((const __m128i *)p);
            /* Signed: bytes from 0x80 on are negative, hence less than a space as well. */
            int hits = _mm_movemask_epi8(_mm_or_si128(_mm_cmplt_epi8(bytes, space),
                _mm_or_si128(_mm_cmpeq_epi8(bytes, quote), _mm_cmpeq_epi8(bytes, backslash))));
            if (hits)
                return p + __builtin_ctz(hits);
        }
    #else
        const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
        for (;; p += 8) {
            uint64_t bytes, quote, backslash;
            memcpy(&bytes, p, 8);
            quote = bytes ^ ones * '"';
            backslash = bytes ^ ones * '\\\\';
            if (((quote - ones) | (backslash - ones) | (bytes - ones * ' ') | bytes) & highs)
                break;
        }
        while (*p != '"' && *p != '\\\\' && *p >= ' ' && *p < 0x80)
            p++;
        return p;
    #endif
    }

    /* The first eight bytes of a name as a number, and its length: equal for equal names. Reads eight bytes always. */
    static inline uint64_t fv_name_head(const unsigned char *name, size_t size) {
        uint64_t head;
        memcpy(&head, name, 8);
        if (size < 8)
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
            head &= ((uint64_t)1 << 8 * size) - 1;
    #else
            head &= ~(UINT64_MAX >> 8 * size);
    #endif
        return head ^ (uint64_t)size << 56;
    }

    static inline uint64_t fv_mix(uint64_t head) {
        return head * 0x9E3779B97F4A7C15u;
    }
    """
    const unsigned char *fv_plain_end(const unsigned char *p) noexcept nogil
    unsigned long long fv_name_head(const unsigned char *name, size_t size) noexcept nogil
    unsigned long long fv_mix(unsigned long long head) noexcept nogil

cdef extern from "Python.h":
    object PyUnicode_New(Py_ssize_t size, Py_UCS4 maxchar)
    void *PyUnicode_DATA(object text)
    double PyOS_string_to_double(const char *text, char **end, PyObject *overflow) except? -1.0
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL

cdef enum:
    JSON_PAD = 16
    MAX_DEPTH = 8
    MAX_MEMBERS = 128
    MAX_STRING = 4096  # bytes between the quotes, and characters of a number

cdef enum Kind:
    ABSENT = 0
    STRING = 1
    INTEGER = 2
    FLOAT = 3
    LITERAL = 4
    CONTAINER = 5

# What a string holds besides plain ASCII.
cdef enum:
    ESCAPES = 1
    NON_ASCII = 2

cdef enum Names:
    NO_NAMES
    CLAIM_NAMES
    HEADER_NAMES

# The members that scan() notes. Header members from CRIT on make a token unsupported, whatever their value.
cdef enum:
    ISS, SUB, AUD, EXP, NBF, IAT, JTI, TENANT, HANDLE
    CLAIMS_NOTED
cdef enum:
    ALG, KID, TYP_MEMBER
    CRIT, B64, ZIP, JWK, JKU, X5U, X5C, ENC
    HEADER_NOTED

cdef tuple CLAIM_MEMBERS = ("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "tId", "sessionHandle")
cdef tuple HEADER_MEMBERS = ("alg", "kid", "typ", "crit", "b64", "zip", "jwk", "jku", "x5u", "x5c", "enc")

cdef struct Member:
    unsigned int start  # of the value, quotes and brackets included
    unsigned int size
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


cdef inline const unsigned char *skip_blanks(const unsigned char *p) noexcept nogil:
    while p[0] == c" " or p[0] == c"\n" or p[0] == c"\r" or p[0] == c"\t":
        p += 1
    return p


cdef int hex4(const unsigned char *p) noexcept nogil:
    """The value of four hexadecimal digits, or -1. Stops at the first foreign byte, so never reads past the padding."""
    cdef int value = 0, i
    cdef unsigned char digit
    for i in range(4):
        digit = p[i]
        if c"0" <= digit <= c"9":
            value = value << 4 | (digit - c"0")
        elif c"a" <= (digit | 0x20) <= c"f":
            value = value << 4 | ((digit | 0x20) - c"a" + 10)
        else:
            return -1
    return value


cdef const unsigned char *escape_end(const unsigned char *p, int *error) noexcept nogil:
    """Past the escape whose backslash is at p (a pair of them for a surrogate pair), or NULL."""
    cdef int unit
    if p[1] == c"u":
        unit = hex4(p + 2)
        if unit < 0:
            error[0] = JSON_SYNTAX
            return NULL
        if unit < 0xD800 or unit >0xDFFF:
            return p + 6
        if unit < 0xDC00 and p[6] == c"\\" and p[7] == c"u" and 0xDC00 <= hex4(p + 8) <= 0xDFFF:
            return p + 12
        error[0] = SURROGATE
        return NULL
    if (p[1] == c'"' or p[1] == c"\\" or p[1] == c"/" or p[1] == c"b" or p[1] == c"f" or p[1] == c"n" or p[1] == c"r"
            or p[1] == c"t"):
        return p + 2
    error[0] = JSON_SYNTAX
    return NULL


cdef inline bint trails(unsigned char byte) noexcept nogil:
    return byte & 0xC0 == 0x80


cdef const unsigned char *utf8_end(const unsigned char *p) noexcept nogil:
    """Past the character that starts at p with a byte from 0x80 on, or NULL (RFC 3629 section 4: no overlong forms, no
    surrogates, nothing above U+10FFFF)."""
    if 0xC2 <= p[0] <= 0xDF:
        return p + 2 if trails(p[1]) else NULL
    if p[0] & 0xF0 == 0xE0:
        if not trails(p[1]) or (p[0] == 0xE0 and p[1] < 0xA0) or (p[0] == 0xED and p[1] > 0x9F):
            return NULL
        return p + 3 if trails(p[2]) else NULL
    if 0xF0 <= p[0] <= 0xF4:
        if not trails(p[1]) or (p[0] == 0xF0 and p[1] < 0x90) or (p[0] == 0xF4 and p[1] > 0x8F):
            return NULL
        return p + 4 if trails(p[2]) and trails(p[3]) else NULL
    return NULL


cdef inline const unsigned char *string_end(const unsigned char *p, int *flags, int *error) noexcept nogil:
    """The closing quote of the string whose first byte is at p, or NULL."""
    cdef const unsigned char *begin = p
    flags[0] = 0
    while True:
        p = fv_plain_end(p)
        if p[0] == c'"':
            if p - begin <= MAX_STRING:
                return p
            error[0] = STRING_SIZE
            return NULL
        if p[0] == c"\\":
            flags[0] |= ESCAPES
            p = escape_end(p, error)
        elif p[0] < 0x20:
            error[0] = JSON_SYNTAX
            return NULL
        else:
            flags[0] |= NON_ASCII
            p = utf8_end(p)
            if p == NULL:
                error[0] = UTF8
        if p == NULL:
            return NULL


cdef size_t unescape(const unsigned char *p, size_t size, unsigned char *out) noexcept nogil:
    """Write the UTF-8 of a scanned string's value to `out`, which has room for `size` bytes (it never grows)."""
    cdef const unsigned char *end = p + size
    cdef unsigned char *begin = out
    cdef unsigned int point
    while p < end:
        if p[0] != c"\\":
            out[0] = p[0]
            p += 1
            out += 1
            continue
        if p[1] != c"u":
            if p[1] == c"b":
                out[0] = 0x08
            elif p[1] == c"f":
                out[0] = 0x0C
            elif p[1] == c"n":
                out[0] = 0x0A
            elif p[1] == c"r":
                out[0] = 0x0D
            elif p[1] == c"t":
                out[0] = 0x09
            else:
                out[0] = p[1]
            p += 2
            out += 1
            continue
        point = <unsigned int>hex4(p + 2)
        p += 6
        if 0xD800 <= point <= 0xDBFF:
            point = 0x10000 + ((point - 0xD800) << 10) + (<unsigned int>hex4(p + 2) - 0xDC00)
            p += 6
        if point < 0x80:
            out[0] = <unsigned char>point
            out += 1
        elif point < 0x800:
            out[0] = <unsigned char>(0xC0 | point >> 6)
            out[1] = <unsigned char>(0x80 | point & 0x3F)
            out += 2
        elif point < 0x10000:
            out[0] = <unsigned char>(0xE0 | point >> 12)
            out[1] = <unsigned char>(0x80 | point >> 6 & 0x3F)
            out[2] = <unsigned char>(0x80 | point & 0x3F)
            out += 3
        else:
            out[0] = <unsigned char>(0xF0 | point >> 18)
            out[1] = <unsigned char>(0x80 | point >> 12 & 0x3F)
            out[2] = <unsigned char>(0x80 | point >> 6 & 0x3F)
            out[3] = <unsigned char>(0x80 | point & 0x3F)
            out += 4
    return out - begin


cdef inline bint is_digit(unsigned char byte) noexcept nogil:
    return c"0" <= byte <= c"9"


# The digits of 2^1024 - 2^970: the least number that rounds to infinity, halfway above the largest double (whose
# significand is odd, so the tie rounds away from it).
cdef const char *FIRST_INFINITE = (
    b"1797693134862315807937289714053034150799341327100378269361737789804449682927647509466490179775872070963"
    b"3028641669288791094655554785194040263065748867150582068190890200070838367627385484581771153176447573027"
    b"0069855571366959622842914819860834936475292719074168444365510704342711559699508093042880177904174497792"
)
cdef enum:
    INFINITE_DIGITS = 309


cdef bint overflows(const unsigned char *p, const unsigned char *end) noexcept nogil:
    """Whether a decimal fraction of the grammar below would round to infinity. Exact, and free of the C locale."""
    cdef const unsigned char *digits = NULL  # the first one that is not zero
    cdef long point = 0  # the value is 0.digits * 10^point
    cdef long exponent = 0
    cdef bint fraction = False, negative
    cdef int i
    if p[0] == c"-":
        p += 1
    while p < end and (p[0] | 0x20) != c"e":
        if p[0] == c".":
            fraction = True
        else:
            if digits == NULL and p[0] != c"0":
                digits = p
            if digits != NULL:
                point += not fraction
            elif fraction:
                point -= 1
        p += 1
    if digits == NULL:
        return False
    if p < end:
        p += 1
        negative = p[0] == c"-"
        if p[0] == c"-" or p[0] == c"+":
            p += 1
        while p < end:
            if exponent < 100000:  # far beyond what 4 KiB of digits can make up for
                exponent = exponent * 10 + (p[0] - c"0")
            p += 1
        point += -exponent if negative else exponent
    if point != INFINITE_DIGITS:
        return point > INFINITE_DIGITS
    for i in range(INFINITE_DIGITS):
        if digits[0] == c".":
            digits += 1
        if not is_digit(digits[0]):  # only zeros from here on, and the border ends in a 2
            return False
        if digits[0] != <unsigned char>FIRST_INFINITE[i]:
            return digits[0] > <unsigned char>FIRST_INFINITE[i]
        digits += 1
    return True


cdef const unsigned char *number_end(const unsigned char *p, Kind *kind, int *error) noexcept nogil:
    """Past the number that starts at p, or NULL (RFC 8259 section 6)."""
    cdef const unsigned char *begin = p
    cdef bint exponent = False
    error[0] = JSON_SYNTAX
    kind[0] = INTEGER
    if p[0] == c"-":
        p += 1
    if not is_digit(p[0]):
        return NULL
    if p[0] == c"0":
        p += 1
    else:
        while is_digit(p[0]):
            p += 1
    if p[0] == c".":
        kind[0] = FLOAT
        p += 1
        if not is_digit(p[0]):
            return NULL
        while is_digit(p[0]):
            p += 1
    if p[0] | 0x20 == c"e":
        kind[0] = FLOAT
        exponent = True
        p += 1
        if p[0] == c"-" or p[0] == c"+":
            p += 1
        if not is_digit(p[0]):
            return NULL
        while is_digit(p[0]):
            p += 1
    if p - begin > MAX_STRING:
        error[0] = STRING_SIZE
        return NULL
    if kind[0] == FLOAT and (exponent or p - begin >= INFINITE_DIGITS) and overflows(begin, p):
        error[0] = NUMBER_RANGE
        return NULL
    return p


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
    cdef unsigned int outer_start = 0
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
                    outer_start = <unsigned int>(begin - text)
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
            found[noted].start = <unsigned int>(begin - text)
            found[noted].size = <unsigned int>(p - begin)
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
            s.count = level.first
            s.depth -= 1
            if s.depth == 1 and outer >= 0:
                found[outer].start = outer_start
                found[outer].size = <unsigned int>(p - text) - outer_start
                found[outer].kind = CONTAINER
                outer = -1
        else:
            p = skip_blanks(p)
            return FINE if p == text + size else TRAILING_DATA


# --- Python objects out of a scanned document ---

cdef inline object ascii_text(const unsigned char *p, Py_ssize_t size):
    cdef object text = PyUnicode_New(size, 127)
    memcpy(PyUnicode_DATA(text), p, size)
    return text


cdef object string_value(const unsigned char *p, Py_ssize_t size, int flags):
    """The str of a scanned string, without its quotes."""
    cdef unsigned char plain[MAX_STRING]
    if flags & ESCAPES:
        size = unescape(p, size, plain)
        return PyUnicode_DecodeUTF8(<const char *>plain, size, NULL)
    if flags & NON_ASCII:
        return PyUnicode_DecodeUTF8(<const char *>p, size, NULL)
    return ascii_text(p, size)


# Member names come again with every token, so the latest str of each is kept: a fixed table, looked up by the name's
# head.
cdef enum:
    KEPT_BITS = 9
    KEPT_SIZE = 24
cdef PyObject *kept_names[1 << KEPT_BITS]
cdef object kept_names_guard = object()  # its lock guards the table where there is no GIL


cdef object name_value(const unsigned char *p, Py_ssize_t size, int flags):
    """The str of a member's name; the same object for the same name, mostly."""
    cdef PyObject **place
    cdef object name
    if flags or size > KEPT_SIZE:
        return string_value(p, size, flags)
    place = &kept_names[fv_mix(fv_name_head(p, size)) >> (64 - KEPT_BITS)]
    with cython.critical_section(kept_names_guard):
        if place[0] != NULL:
            name = <object>place[0]
            if len(<str>name) == size and memcmp(PyUnicode_DATA(name), p, size) == 0:
                return name
        name = ascii_text(p, size)
        Py_INCREF(name)
        Py_XDECREF(place[0])
        place[0] = <PyObject *>name
    return name


cdef object integer_value(const unsigned char *p, const unsigned char *end):
    """The int of a scanned integer, of any size; independent of sys.set_int_max_str_digits."""
    cdef bint negative = p[0] == c"-"
    cdef unsigned long long part, scale
    cdef object value = None
    p += negative
    while p < end:
        part = 0
        scale = 1
        while p < end and scale < 1000000000000000000ULL:
            part = part * 10 + (p[0] - c"0")
            scale *= 10
            p += 1
        value = part if value is None else value * scale + part
    return -value if negative else value


cdef object build(const unsigned char **cursor):
    """The Python object of the value at the cursor, which moves past it."""
    cdef const unsigned char *p = cursor[0]
    cdef const unsigned char *end
    cdef char *stop = NULL
    cdef int flags, error
    cdef Kind kind
    cdef object value, name
    if p[0] == c'"':
        end = string_end(p + 1, &flags, &error)
        cursor[0] = end + 1
        return string_value(p + 1, end - p - 1, flags)
    if p[0] == c"{":
        value = {}
        p = skip_blanks(p + 1)
        while p[0] != c"}":
            end = string_end(p + 1, &flags, &error)
            name = name_value(p + 1, end - p - 1, flags)
            p = skip_blanks(skip_blanks(end + 1) + 1)
            cursor[0] = p
            PyDict_SetItem(value, name, build(cursor))
            p = next_item(cursor[0])
        cursor[0] = p + 1
        return value
    if p[0] == c"[":
        value = []
        p = skip_blanks(p + 1)
        while p[0] != c"]":
            cursor[0] = p
            PyList_Append(value, build(cursor))
            p = next_item(cursor[0])
        cursor[0] = p + 1
        return value
    if p[0] == c"t":
        cursor[0] = p + 4
        return True
    if p[0] == c"f":
        cursor[0] = p + 5
        return False
    if p[0] == c"n":
        cursor[0] = p + 4
        return None
    end = number_end(p, &kind, &error)
    cursor[0] = end
    if kind == INTEGER:
        return integer_value(p, end)
    return PyOS_string_to_double(<const char *>p, &stop, NULL)


cdef inline const unsigned char *next_item(const unsigned char *p) noexcept nogil:
    """From the end of a value to the next one, or to the bracket that closes them."""
    p = skip_blanks(p)
    return skip_blanks(p + 1) if p[0] == c"," else p


cdef const unsigned char *value_end(const unsigned char *p) noexcept nogil:
    """Past the scanned value at p."""
    cdef int depth = 0, flags, error
    cdef Kind kind
    while True:
        if p[0] == c'"':
            p = string_end(p + 1, &flags, &error) + 1
        elif p[0] == c"{" or p[0] == c"[":
            depth += 1
            p += 1
        elif p[0] == c"}" or p[0] == c"]":
            depth -= 1
            p += 1
        elif p[0] == c"-" or is_digit(p[0]):
            p = number_end(p, &kind, &error)
        else:  # a comma, colon or blank, or a letter of a literal
            p += 1
            if depth == 0:
                while c"a" <= p[0] <= c"z":
                    p += 1
        if depth == 0:
            return p


cdef const unsigned char *find(const unsigned char *p, const unsigned char *name, size_t size) noexcept nogil:
    """The value of a member of the scanned top object at p, or NULL."""
    cdef unsigned char plain[MAX_STRING]
    cdef const unsigned char *end
    cdef int flags, error
    cdef bint same
    p = skip_blanks(skip_blanks(p) + 1)
    while p[0] != c"}":
        end = string_end(p + 1, &flags, &error)
        if flags & ESCAPES:
            same = unescape(p + 1, end - p - 1, plain) == size and memcmp(plain, name, size) == 0
        else:
            same = <size_t>(end - p - 1) == size and memcmp(p + 1, name, size) == 0
        p = skip_blanks(skip_blanks(end + 1) + 1)
        if same:
            return p
        p = next_item(value_end(p))
    return NULL


cdef list names_of(const unsigned char *p):
    """The member names of the scanned top object at p, in their order."""
    cdef list names = []
    cdef const unsigned char *end
    cdef int flags, error
    p = skip_blanks(skip_blanks(p) + 1)
    while p[0] != c"}":
        end = string_end(p + 1, &flags, &error)
        names.append(name_value(p + 1, end - p - 1, flags))
        p = next_item(value_end(skip_blanks(skip_blanks(end + 1) + 1)))
    return names


def parse_json(bytes data not None):
    """Parse one strict JSON object, exactly as claims sets are parsed.

    Strict means RFC 8259 and more: UTF-8 without byte order mark; no member name twice in one object; no lone
    surrogates; at most 8 levels, 128 members an object, 4 KiB a string or number, 16 KiB in all; no number beyond the
    range of a double except integers, whose value is exact.

    Raises:
        MalformedToken: with the ``reason``.
    """
    cdef unsigned char text[MAX_TOKEN + JSON_PAD]
    cdef size_t size = len(data)
    cdef const unsigned char *cursor
    cdef int code
    if size > MAX_TOKEN:
        raise refusal(TOO_LARGE, "")
    memcpy(text, <const char *>data, size)
    memset(text + size, 0, JSON_PAD)
    code = scan(text, size, NO_NAMES, NULL)
    if code != FINE:
        raise refusal(code, "")
    cursor = skip_blanks(text)
    return build(&cursor)
