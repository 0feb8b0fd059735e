# base64url without padding (RFC 4648 section 5, RFC 7515 appendix C), strict.
#
# One value has exactly one spelling: padding, blanks, the "+" and "/" of the other alphabet, a length of 1 mod 4 and non-zero
# trailing bits are refused. A laxer decoder gives each token several spellings, and a blacklist knows only one of them.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    /* What each character is worth in each place of a group of four; the top byte is set for foreign characters. */
    static uint32_t fv_worth[4][256];

    static void fv_fill_worth(void) {
        static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        memset(fv_worth, 0xff, sizeof fv_worth);
        for (int place = 0; place < 4; place++)
            for (uint32_t value = 0; value < 64; value++)
                fv_worth[place][(unsigned char)alphabet[value]] = value << (18 - 6 * place);
    }

    static inline uint32_t fv_group(const unsigned char *text) {
        return fv_worth[0][text[0]] | fv_worth[1][text[1]] | fv_worth[2][text[2]] | fv_worth[3][text[3]];
    }

    static inline void fv_store24(unsigned char *out, uint32_t value) {
        out[0] = (unsigned char)(value >> 16);
        out[1] = (unsigned char)(value >> 8);
        out[2] = (unsigned char)value;
    }
    """
    void fv_fill_worth() noexcept nogil
    unsigned int fv_group(const unsigned char *text) noexcept nogil
    void fv_store24(unsigned char *out, unsigned int value) noexcept nogil

cdef enum:
    FOREIGN = 0xFF000000  # what fv_worth holds for a character outside the alphabet

fv_fill_worth()


cdef Py_ssize_t base64url_decode(const unsigned char *text, Py_ssize_t size, unsigned char *out) noexcept nogil:
    """Decode into `out`, which has room for three bytes for every four characters begun. Returns how many it wrote, or -1."""
    cdef const unsigned char *end = text + (size & ~<Py_ssize_t>3)
    cdef unsigned char *begin = out
    cdef unsigned char last[4]
    cdef unsigned int value, seen = 0
    while text < end:
        value = fv_group(text)
        seen |= value
        fv_store24(out, value)
        text += 4
        out += 3
    if size & 3:
        if size & 3 == 1:
            return -1
        # The last two or three characters, filled up with zeros ("A"): the bits that they do not owe must be zero too.
        last[0], last[1], last[3] = text[0], text[1], c"A"
        last[2] = text[2] if size & 3 == 3 else c"A"
        value = fv_group(last)
        seen |= value
        out[0] = <unsigned char>(value >> 16)
        out += 1
        if size & 3 == 3:
            out[0] = <unsigned char>(value >> 8)
            out += 1
            value &= 0xFF
        if value & 0xFFFF:
            return -1
    return -1 if seen & FOREIGN else out - begin
