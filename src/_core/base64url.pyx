# base64url without padding (RFC 4648 section 5, RFC 7515 appendix C), strict.
#
# One value has exactly one spelling: padding, blanks, the "+" and "/" of the other alphabet, a length of 1 mod 4 and
# non-zero trailing bits are refused. A laxer decoder gives each token several spellings, and a blacklist knows only one
# of them.

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>

    /* What each character is worth in each place of a group of four, as the three bytes of the group in memory order.
       The fourth byte is set for characters outside the alphabet. */
    static uint32_t fv_worth[4][256];
    static uint32_t fv_foreign;

    /* Decode as much as goes in steps of 32 characters, each of which writes 32 bytes where 24 are meant, and return
       how much that was; -1 for a foreign character. Where the processor has no AVX2 that is nothing. */
    #if defined(__x86_64__) && defined(__GNUC__)
    #include <immintrin.h>

    static int fv_wide_steps;

    /* By the high half of a character: what takes it to its value, and which classes of low halves it forbids. A class
       is a bit: 1 all but D, 2 A to F, 4 only 0, 8 B to E, 16 B to F, 32 all. So whatever is not in the alphabet is
       forbidden, and "_" alone needs another distance than its neighbours. */
    #define FV_TWICE(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \\
        _mm256_setr_epi8(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)

    __attribute__((target("avx2")))
    static ptrdiff_t fv_decode_avx2(const unsigned char *text, ptrdiff_t size, unsigned char *out) {
        const __m256i distance = FV_TWICE(0, 0, 62 - '-', 52 - '0', -'A', -'A', 26 - 'a', 26 - 'a', 0, 0, 0, 0, 0, 0, 0,
                                          0);
        const __m256i forbids = FV_TWICE(32, 32, 1, 2, 4, 8, 4, 16, 32, 32, 32, 32, 32, 32, 32, 32);
        const __m256i classes = FV_TWICE(37, 33, 33, 33, 33, 33, 33, 33, 33, 33, 35, 59, 59, 58, 59, 51);
        const __m256i half = _mm256_set1_epi8(15), underscore = _mm256_set1_epi8('_');
        const __m256i underscore_extra = _mm256_set1_epi8(63 - '_' + 'A');
        const __m256i join_pairs = _mm256_set1_epi32(0x01400140), join_halves = _mm256_set1_epi32(0x00011000);
        const __m256i order = FV_TWICE(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
        const __m256i close_ranks = _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7);
        __m256i bad = _mm256_setzero_si256();
        ptrdiff_t done = 0;
        for (; size - done >= 32; done += 32, out += 24) {
            __m256i c = _mm256_loadu_si256((const __m256i *)(text + done));
            __m256i high = _mm256_and_si256(_mm256_srli_epi32(c, 4), half), low = _mm256_and_si256(c, half);
            __m256i extra = _mm256_and_si256(_mm256_cmpeq_epi8(c, underscore), underscore_extra);
            __m256i value = _mm256_add_epi8(_mm256_add_epi8(c, _mm256_shuffle_epi8(distance, high)), extra);
            bad = _mm256_or_si256(bad, _mm256_and_si256(_mm256_shuffle_epi8(forbids, high),
                                                        _mm256_shuffle_epi8(classes, low)));
            /* Six bits in each byte become 24 in each word of 32, then 24 bytes in a row. */
            value = _mm256_madd_epi16(_mm256_maddubs_epi16(value, join_pairs), join_halves);
            value = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(value, order), close_ranks);
            _mm256_storeu_si256((__m256i *)out, value);
        }
        return _mm256_testz_si256(bad, bad) ? done : -1;
    }

    static inline ptrdiff_t fv_decode_wide(const unsigned char *text, ptrdiff_t size, unsigned char *out) {
        return fv_wide_steps ? fv_decode_avx2(text, size, out) : 0;
    }

    static void fv_look_at_processor(void) {
        __builtin_cpu_init();
        fv_wide_steps = __builtin_cpu_supports("avx2") != 0;
    }
    #else
    #define fv_decode_wide(text, size, out) 0
    #define fv_look_at_processor() ((void)0)
    #endif

    static void fv_fill_worth(void) {
        static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        memset(fv_worth, 0xff, sizeof fv_worth);
        for (int place = 0; place < 4; place++)
            for (uint32_t value = 0; value < 64; value++) {
                uint32_t bits = value << (18 - 6 * place);
                unsigned char bytes[4] = {(uint8_t)(bits >> 16), (uint8_t)(bits >> 8), (uint8_t)bits, 0};
                memcpy(&fv_worth[place][(unsigned char)alphabet[value]], bytes, 4);
            }
        memcpy(&fv_foreign, "\\0\\0\\0\\xff", 4);
        fv_look_at_processor();
    }

    /* Decode one group into out, of which four bytes are written. */
    static inline uint32_t fv_group(const unsigned char *text, unsigned char *out) {
        uint32_t group = fv_worth[0][text[0]] | fv_worth[1][text[1]] | fv_worth[2][text[2]] | fv_worth[3][text[3]];
        memcpy(out, &group, 4);
        return group;
    }
    """
    unsigned int fv_foreign
    void fv_fill_worth() noexcept nogil
    Py_ssize_t fv_decode_wide(const unsigned char *text, Py_ssize_t size, unsigned char *out) noexcept nogil
    unsigned int fv_group(const unsigned char *text, unsigned char *out) noexcept nogil

cdef enum:
    BASE64URL_SLACK = 8  # bytes that may be written after the last one that is meant

fv_fill_worth()


cdef Py_ssize_t base64url_decode(const unsigned char *text, Py_ssize_t size, unsigned char *out) noexcept nogil:
    """Decode `size` characters and return how many bytes there are, or -1.

    `out` has room for three bytes for every four characters begun, and BASE64URL_SLACK.
    """
    cdef const unsigned char *end = text + (size & ~<Py_ssize_t>3)
    cdef unsigned char *begin = out
    cdef unsigned char last[4]
    cdef unsigned int seen = 0
    cdef Py_ssize_t done = fv_decode_wide(text, size, out)
    if done < 0:
        return -1
    text += done
    out += done // 4 * 3
    while text < end:
        seen |= fv_group(text, out)
        text += 4
        out += 3
    if size & 3 == 1:
        return -1
    if size & 3:
        # Two or three characters, filled up with "A" for zero bits: nothing may lie beyond their whole bytes.
        last[0], last[1], last[2], last[3] = text[0], text[1], c"A", c"A"
        if size & 3 == 3:
            last[2] = text[2]
        seen |= fv_group(last, out)
        out += (size & 3) - 1
        if out[0]:
            return -1
    return -1 if seen & fv_foreign else out - begin
