# base64url without padding (RFC 4648 section 5, RFC 7515 appendix C), strict.
#
# One value has exactly one spelling: padding, blanks, the "+" and "/" of the other alphabet, a length of 1 mod 4 and
# non-zero trailing bits are refused. A laxer decoder gives each token several spellings, and a blacklist knows only one
# of them.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* What each character is worth in each place of a group of four, as the three bytes of the group in memory order.
       The fourth byte is set for characters outside the alphabet. */
    static uint32_t fv_worth[4][256];
    static uint32_t fv_foreign;

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
    unsigned int fv_group(const unsigned char *text, unsigned char *out) noexcept nogil

cdef enum:
    BASE64URL_SLACK = 1  # bytes that may be written after the last one that is meant

fv_fill_worth()


cdef Py_ssize_t base64url_decode(const unsigned char *text, Py_ssize_t size, unsigned char *out) noexcept nogil:
    """Decode `size` characters and return how many bytes there are, or -1.

    `out` has room for three bytes for every four characters begun, and BASE64URL_SLACK.
    """
    cdef const unsigned char *end = text + (size & ~<Py_ssize_t>3)
    cdef unsigned char *begin = out
    cdef unsigned char last[4]
    cdef unsigned int seen = 0
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
