# The one piece of arithmetic that is ours: an inverse modulo an odd number of 256 bits, for the s of an ECDSA
# signature.
#
# All of it is public, so its time may depend on the data; libcrypto's BN_mod_inverse takes longer than half of all the
# rest of a fast check. Nobody has to believe the result: whoever asks for it multiplies it with the input through
# libcrypto, and unless the product is 1 lets EVP decide (fast_ecdsa.pyx).
#
# Method: Bernstein and Yang, "Fast constant-time gcd computation and modular inversion" (2019), in its variable-time
# form. (f, g) starts as (modulus, input); a division step replaces (f, g) by (f, g/2), (f, (g + f)/2) or
# (g, (g - f)/2), whichever keeps f odd and, by the balance of steps taken so far, the two shrinking. Sixty-two steps
# depend on the low 62 bits alone, so they are worked out on single words, as a matrix of four whole numbers scaled by
# 2^62, and then applied at once: to (f, g), exactly divisible by 2^62, and to (d, e), the multiples of the inverse that
# belong to them, made divisible by adding a multiple of the modulus. When g is 0, f is 1 or -1 and d is the inverse, up
# to that sign.

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>

    typedef __int128 fv_wide;

    /* Little-endian limbs of 62 bits; the last one carries the sign. */
    typedef struct {
        int64_t limb[5];
    } fv_number;

    typedef struct {
        fv_number modulus;
        uint64_t inverse; /* of the modulus, modulo 2^62 */
    } fv_modulus;

    #define FV_BITS 62
    #define FV_LOW ((int64_t)(UINT64_MAX >> 2))

    static void fv_number_read(fv_number *number, const unsigned char *big_endian) {
        uint64_t word[4] = {0};
        for (int i = 0; i < 32; i++)
            word[3 - i / 8] = word[3 - i / 8] << 8 | big_endian[i];
        number->limb[0] = (int64_t)word[0] & FV_LOW;
        number->limb[1] = (int64_t)(word[0] >> 62 | word[1] << 2) & FV_LOW;
        number->limb[2] = (int64_t)(word[1] >> 60 | word[2] << 4) & FV_LOW;
        number->limb[3] = (int64_t)(word[2] >> 58 | word[3] << 6) & FV_LOW;
        number->limb[4] = (int64_t)(word[3] >> 56);
    }

    static void fv_number_write(const fv_number *number, unsigned char *big_endian) {
        const int64_t *limb = number->limb;
        uint64_t word[4] = {
            (uint64_t)limb[0] | (uint64_t)limb[1] << 62,
            (uint64_t)limb[1] >> 2 | (uint64_t)limb[2] << 60,
            (uint64_t)limb[2] >> 4 | (uint64_t)limb[3] << 58,
            (uint64_t)limb[3] >> 6 | (uint64_t)limb[4] << 56,
        };
        for (int i = 0; i < 32; i++)
            big_endian[i] = (unsigned char)(word[3 - i / 8] >> (56 - 8 * (i % 8)));
    }

    /* 32 bytes, odd. */
    static void fv_modulus_read(fv_modulus *m, const unsigned char *big_endian) {
        fv_number_read(&m->modulus, big_endian);
        uint64_t odd = (uint64_t)m->modulus.limb[0], inverse = odd; /* right in 3 bits, then 6, 12, ... */
        for (int bits = 3; bits < 64; bits *= 2)
            inverse *= 2 - odd * inverse;
        m->inverse = inverse & (uint64_t)FV_LOW;
    }

    /* (a, b) becomes (u a + v b, q a + r b) / 2^62, both exactly divisible. */
    static inline void fv_apply(const int64_t matrix[4], fv_number *a, fv_number *b) {
        fv_wide first = 0, second = 0;
        for (int i = 0; i < 5; i++) {
            int64_t x = a->limb[i], y = b->limb[i];
            first += (fv_wide)matrix[0] * x + (fv_wide)matrix[1] * y;
            second += (fv_wide)matrix[2] * x + (fv_wide)matrix[3] * y;
            if (i) {
                a->limb[i - 1] = (int64_t)first & FV_LOW;
                b->limb[i - 1] = (int64_t)second & FV_LOW;
            }
            first >>= FV_BITS;
            second >>= FV_BITS;
        }
        a->limb[4] = (int64_t)first;
        b->limb[4] = (int64_t)second;
    }

    /* The same modulo m, which is added as often as makes it divisible: (d, e) stay between -2 m and m. */
    static inline void fv_apply_modulo(const int64_t matrix[4], const fv_modulus *m, fv_number *d, fv_number *e) {
        int64_t u = matrix[0], v = matrix[1], q = matrix[2], r = matrix[3];
        int64_t d_sign = d->limb[4] >> 63, e_sign = e->limb[4] >> 63;
        int64_t first_times = (u & d_sign) + (v & e_sign), second_times = (q & d_sign) + (r & e_sign);
        uint64_t first_low = (uint64_t)u * (uint64_t)d->limb[0] + (uint64_t)v * (uint64_t)e->limb[0];
        uint64_t second_low = (uint64_t)q * (uint64_t)d->limb[0] + (uint64_t)r * (uint64_t)e->limb[0];
        fv_wide first = 0, second = 0;
        first_times -= (int64_t)((m->inverse * first_low + (uint64_t)first_times) & (uint64_t)FV_LOW);
        second_times -= (int64_t)((m->inverse * second_low + (uint64_t)second_times) & (uint64_t)FV_LOW);
        for (int i = 0; i < 5; i++) {
            int64_t x = d->limb[i], y = e->limb[i], z = m->modulus.limb[i];
            first += (fv_wide)u * x + (fv_wide)v * y + (fv_wide)z * first_times;
            second += (fv_wide)q * x + (fv_wide)r * y + (fv_wide)z * second_times;
            if (i) {
                d->limb[i - 1] = (int64_t)first & FV_LOW;
                e->limb[i - 1] = (int64_t)second & FV_LOW;
            }
            first >>= FV_BITS;
            second >>= FV_BITS;
        }
        d->limb[4] = (int64_t)first;
        e->limb[4] = (int64_t)second;
    }

    /* Sixty-two division steps on the low words. `balance` is minus the difference that decides when to exchange. */
    static inline int64_t fv_steps(int64_t balance, const fv_number *f_, const fv_number *g_, int64_t matrix[4]) {
        /* -1/x modulo 16 for odd x, by x / 2 modulo 8. */
        static const unsigned char cancels[8] = {15, 5, 3, 9, 7, 13, 11, 1};
        uint64_t f = (uint64_t)f_->limb[0] | (uint64_t)f_->limb[1] << FV_BITS;
        uint64_t g = (uint64_t)g_->limb[0] | (uint64_t)g_->limb[1] << FV_BITS;
        uint64_t u = 1, v = 0, q = 0, r = 1, swap, times;
        int left = FV_BITS, even, bits;
        for (;;) {
            even = __builtin_ctzll(g | UINT64_MAX << left);
            g >>= even;
            u <<= even;
            v <<= even;
            balance -= even;
            left -= even;
            if (left == 0)
                break;
            if (balance < 0) {
                balance = -balance;
                swap = f, f = g, g = -swap;
                swap = u, u = q, q = -swap;
                swap = v, v = r, r = -swap;
            }
            /* No exchange is due for `bits` steps: up to four low bits of g can be cancelled at once. */
            bits = balance + 1 < left ? (int)balance + 1 : left;
            times = g * cancels[f >> 1 & 7] & (bits < 4 ? ((uint64_t)1 << bits) - 1 : 15);
            g += f * times;
            q += u * times;
            r += v * times;
        }
        matrix[0] = (int64_t)u, matrix[1] = (int64_t)v, matrix[2] = (int64_t)q, matrix[3] = (int64_t)r;
        return balance;
    }

    static inline void fv_add_where(fv_number *a, const fv_number *b, int64_t mask) {
        for (int i = 0; i < 5; i++)
            a->limb[i] += b->limb[i] & mask;
    }

    static inline void fv_carry(fv_number *a) {
        for (int i = 0; i < 4; i++) {
            a->limb[i + 1] += a->limb[i] >> FV_BITS;
            a->limb[i] &= FV_LOW;
        }
    }

    /* The inverse of 32 bytes into 32 bytes, both big-endian. Of a number that has none something else comes out, or
       0 is returned. */
    static int fv_inverse(const fv_modulus *m, const unsigned char *number, unsigned char *out) {
        fv_number f = m->modulus, g, d = {{0}}, e = {{1}};
        int64_t matrix[4], balance = -1, sign;
        fv_number_read(&g, number);
        for (int round = 0; round < 12; round++) { /* 12 * 62 steps: more than 256 bits can need (741) */
            balance = fv_steps(balance, &f, &g, matrix);
            fv_apply_modulo(matrix, m, &d, &e);
            fv_apply(matrix, &f, &g);
            if (g.limb[0] | g.limb[1] | g.limb[2] | g.limb[3] | g.limb[4])
                continue;
            sign = f.limb[4] >> 63;
            fv_add_where(&d, &m->modulus, d.limb[4] >> 63);
            for (int i = 0; i < 5; i++)
                d.limb[i] = (d.limb[i] ^ sign) - sign;
            fv_carry(&d);
            fv_add_where(&d, &m->modulus, d.limb[4] >> 63);
            fv_carry(&d);
            if (d.limb[4] >> 8)
                return 0;
            fv_number_write(&d, out);
            return 1;
        }
        return 0;
    }
    """
    ctypedef struct fv_modulus:
        pass
    void fv_modulus_read(fv_modulus *m, const unsigned char *big_endian) noexcept nogil
    int fv_inverse(const fv_modulus *m, const unsigned char *number, unsigned char *out) noexcept nogil
