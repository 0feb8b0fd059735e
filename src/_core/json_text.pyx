# The words of JSON (RFC 8259 sections 6 and 7): blanks, strings, numbers, without the GIL and without Python objects.

# A document is followed by JSON_PAD zero bytes. The zero ends every loop, since no grammar rule accepts it (control
# characters are refused inside strings), so that no loop compares against the end; and strings are read 16 bytes at a
# time.

cdef extern from *:
    """
    #include <string.h>
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

    /* 16 and the value of a hexadecimal digit; 0 for any other byte. */
    static const unsigned char fv_digit[256] = {
        ['0'] = 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
        ['A'] = 26, 27, 28, 29, 30, 31,
        ['a'] = 26, 27, 28, 29, 30, 31,
    };

    /* The value of four hexadecimal digits, or -1. Whether a digit is a letter is chance in a UUID: no branch depends
       on it. */
    static inline int fv_hex4(const unsigned char *p) {
        int a = fv_digit[p[0]], b = fv_digit[p[1]], c = fv_digit[p[2]], d = fv_digit[p[3]];
        return a & b & c & d & 16 ? (a & 15) << 12 | (b & 15) << 8 | (c & 15) << 4 | (d & 15) : -1;
    }
    """
    const unsigned char *fv_plain_end(const unsigned char *p) noexcept nogil
    unsigned long long fv_name_head(const unsigned char *name, size_t size) noexcept nogil
    unsigned long long fv_mix(unsigned long long head) noexcept nogil
    int hex4 "fv_hex4"(const unsigned char *p) noexcept nogil

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

cdef inline const unsigned char *skip_blanks(const unsigned char *p) noexcept nogil:
    while p[0] <= c" " and (p[0] == c" " or p[0] == c"\n" or p[0] == c"\r" or p[0] == c"\t"):  # nearly always: none
        p += 1
    return p


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
    cdef const unsigned char *end = fv_plain_end(p)
    flags[0] = 0
    if end[0] == c'"' and end - p <= MAX_STRING:
        return end
    return odd_string_end(p, end, flags, error)


cdef const unsigned char *odd_string_end(const unsigned char *begin, const unsigned char *p, int *flags,
                                         int *error) noexcept nogil:
    """The same for a string that is not plain, or not up to p."""
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
