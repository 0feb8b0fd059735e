# ES256 under a key that is used often: the public key as a generator of its own, with a table of its multiples.
#
# EVP treats the public key as a point that it has never seen, which makes verifying three times as slow as signing.
# libcrypto's EC interface can do better: EC_GROUP_set_generator with the public key and EC_GROUP_precompute_mult give a
# group whose "generator" is the key, so that both multiplications of a check (FIPS 186-5 section 6.4.2) are table
# look-ups and additions:
#
#     w = 1/s mod n;  u1 = e w mod n;  u2 = r w mod n;  R = u1 G + u2 Q;  good if R is not infinity and x(R) mod n = r
#
# The inverse of s is worked out in inverse.pyx and multiplied with s before anything is done with it. R is left in
# Jacobian coordinates (X, Y, Z), where x = X / Z^2 mod p: comparing X with r Z^2, and with (r + n) Z^2 where r + n < p,
# spares an inversion modulo p. All arithmetic on points, and modulo n and p, is libcrypto's.
#
# A table takes some 15 ms of computing and 150 KB: who gets one is decided in tables.pyx. Nothing that a check does may
# depend on a secret, because there is none.

cimport cython
from libc.stdlib cimport calloc, free

from openssl cimport (
    BIGNUM,
    BN_add,
    BN_bin2bn,
    BN_bn2binpad,
    BN_cmp,
    BN_CTX,
    BN_CTX_free,
    BN_CTX_new,
    BN_free,
    BN_is_one,
    BN_is_zero,
    BN_mod_inverse,
    BN_mod_mul,
    BN_mod_mul_montgomery,
    BN_MONT_CTX,
    BN_MONT_CTX_new,
    BN_MONT_CTX_set,
    BN_new,
    BN_nnmod,
    BN_sub,
    BN_to_montgomery,
    EC_GROUP,
    EC_GROUP_dup,
    EC_GROUP_free,
    EC_GROUP_get0_cofactor,
    EC_GROUP_get0_order,
    EC_GROUP_get_curve,
    EC_GROUP_new_by_curve_name,
    EC_GROUP_precompute_mult,
    EC_GROUP_set_generator,
    EC_POINT,
    EC_POINT_add,
    EC_POINT_free,
    EC_POINT_get_affine_coordinates,
    EC_POINT_get_Jprojective_coordinates_GFp,
    EC_POINT_is_at_infinity,
    EC_POINT_mul,
    EC_POINT_new,
    EC_POINT_oct2point,
    FAST_ECDSA,
    NID_P256,
)

# What a fast check, of ECDSA or RSA, works with; part of a Context, so one thread's at a time.
cdef enum:
    SCRATCH_NUMBERS = 9
    SCRATCH_POINTS = 3
cdef struct Scratch:
    BN_CTX *pool
    BIGNUM *number[SCRATCH_NUMBERS]
    EC_POINT *point[SCRATCH_POINTS]


cdef void free_scratch(Scratch *scratch) noexcept nogil:
    cdef int i
    if scratch is NULL:
        return
    for i in range(SCRATCH_NUMBERS):
        BN_free(scratch.number[i])
    for i in range(SCRATCH_POINTS):
        EC_POINT_free(scratch.point[i])
    BN_CTX_free(scratch.pool)
    free(scratch)


cdef Scratch *new_scratch(const EC_GROUP *group) noexcept nogil:
    """Numbers, and points where a group is given; NULL when out of memory."""
    cdef Scratch *scratch = <Scratch *>calloc(1, sizeof(Scratch))
    cdef bint complete
    cdef int i
    if scratch is NULL:
        return NULL
    scratch.pool = BN_CTX_new()
    complete = scratch.pool is not NULL
    for i in range(SCRATCH_NUMBERS):
        scratch.number[i] = BN_new()
        complete = complete and scratch.number[i] is not NULL
    if group is not NULL:
        for i in range(SCRATCH_POINTS):
            scratch.point[i] = EC_POINT_new(group)
            complete = complete and scratch.point[i] is not NULL
    if not complete:
        free_scratch(scratch)
        return NULL
    return scratch


# The curve: made once, when the module is imported, and only read from then on.
cdef struct Curve:
    EC_GROUP *group  # NULL: no fast path
    const BIGNUM *order
    BIGNUM *field
    BN_MONT_CTX *mod_order
    BN_MONT_CTX *mod_field
    fv_modulus modulus  # the order, for inverses

cdef Curve P256


cdef bint make_curve(Curve *curve) noexcept nogil:
    cdef unsigned char order[32]
    cdef BN_CTX *pool = BN_CTX_new()
    cdef bint done
    curve.group = EC_GROUP_new_by_curve_name(NID_P256)
    curve.field = BN_new()
    curve.mod_order = BN_MONT_CTX_new()
    curve.mod_field = BN_MONT_CTX_new()
    done = (
        pool is not NULL and curve.group is not NULL and curve.field is not NULL
        and curve.mod_order is not NULL and curve.mod_field is not NULL
        and EC_GROUP_get_curve(curve.group, curve.field, NULL, NULL, pool) == 1
    )
    if done:
        curve.order = EC_GROUP_get0_order(curve.group)
        done = (
            curve.order is not NULL and BN_bn2binpad(curve.order, order, 32) == 32
            and BN_MONT_CTX_set(curve.mod_order, curve.order, pool) == 1
            and BN_MONT_CTX_set(curve.mod_field, curve.field, pool) == 1
        )
    if done:
        fv_modulus_read(&curve.modulus, order)
    else:  # what there is of it stays; once for each process
        curve.group = NULL
    BN_CTX_free(pool)
    clear_errors()
    return done


if FAST_ECDSA:
    make_curve(&P256)


@cython.final
@cython.internal
cdef class PointTable:
    """The multiples of one public key, ready for use; shared by all threads and never changed."""

    cdef EC_GROUP *group

    def __dealloc__(self):
        EC_GROUP_free(self.group)


cdef EC_GROUP *build_table(const unsigned char *point65) noexcept nogil:
    """A group whose generator is this point, with its table, and tested; NULL where it cannot be had.

    Takes tens of milliseconds. It keeps to the calling thread's own memory, so the GIL is not needed.
    """
    cdef Scratch *scratch = new_scratch(P256.group) if P256.group is not NULL else NULL
    cdef EC_GROUP *table = NULL
    if scratch is not NULL:
        table = EC_GROUP_dup(P256.group)
        if table is NULL or not (
            EC_POINT_oct2point(P256.group, scratch.point[0], point65, 65, scratch.pool) == 1
            and EC_GROUP_set_generator(table, scratch.point[0], P256.order, EC_GROUP_get0_cofactor(P256.group)) == 1
            and EC_GROUP_precompute_mult(table, scratch.pool) == 1
        ):
            EC_GROUP_free(table)
            table = NULL
    free_scratch(scratch)
    clear_errors()
    return table


cdef int fast_ecdsa(Scratch *scratch, const EC_GROUP *table, const unsigned char *signature,
                    const unsigned char *digest) noexcept nogil:
    """1: the 64 bytes are a signature of this SHA-256 by the key of the table; 0: they are not; -1: ask EVP."""
    cdef BN_CTX *pool = scratch.pool
    cdef BIGNUM *r = scratch.number[0]
    cdef BIGNUM *s = scratch.number[1]
    cdef BIGNUM *e = scratch.number[2]
    cdef BIGNUM *w = scratch.number[3]
    cdef BIGNUM *u1 = scratch.number[4]
    cdef BIGNUM *u2 = scratch.number[5]
    cdef BIGNUM *product = scratch.number[6]
    cdef EC_POINT *sum = scratch.point[2]
    cdef unsigned char inverse[32]
    if (
        BN_bin2bn(signature, 32, r) is NULL
        or BN_bin2bn(signature + 32, 32, s) is NULL
        or BN_bin2bn(digest, 32, e) is NULL
    ):
        return -1
    # 1 <= r, s < n. EVP would find the same; nothing outside that range may reach the arithmetic below.
    if BN_is_zero(r) or BN_is_zero(s) or BN_cmp(r, P256.order) >= 0 or BN_cmp(s, P256.order) >= 0:
        return 0
    if BN_cmp(e, P256.order) >= 0 and BN_sub(e, e, P256.order) != 1:  # below 2 n, as n > 2^255
        return -1
    # w in Montgomery form: multiplying by it gives plain numbers. The first product is the proof that it is 1/s.
    if (
        not fv_inverse(&P256.modulus, signature + 32, inverse)
        or BN_bin2bn(inverse, 32, w) is NULL
        or BN_to_montgomery(w, w, P256.mod_order, pool) != 1
        or BN_mod_mul_montgomery(product, s, w, P256.mod_order, pool) != 1
        or not BN_is_one(product)
        or BN_mod_mul_montgomery(u1, e, w, P256.mod_order, pool) != 1
        or BN_mod_mul_montgomery(u2, r, w, P256.mod_order, pool) != 1
        or EC_POINT_mul(P256.group, scratch.point[0], u1, NULL, NULL, pool) != 1
        or EC_POINT_mul(table, scratch.point[1], u2, NULL, NULL, pool) != 1
        or EC_POINT_add(P256.group, sum, scratch.point[0], scratch.point[1], pool) != 1
    ):
        return -1
    if EC_POINT_is_at_infinity(P256.group, sum):
        return 0
    return has_abscissa(scratch, sum, r)


cdef inline int has_abscissa(Scratch *scratch, const EC_POINT *point, BIGNUM *r) noexcept nogil:
    """Whether x(point) mod n is r: x is r, or r + n where that is still below p. `r` is changed."""
    cdef BN_CTX *pool = scratch.pool
    cdef BIGNUM *x = scratch.number[3]
    cdef BIGNUM *y = scratch.number[4]
    cdef BIGNUM *z = scratch.number[5]
    cdef BIGNUM *product = scratch.number[6]
    if (
        EC_POINT_get_Jprojective_coordinates_GFp(P256.group, point, x, y, z, pool) != 1
        or BN_to_montgomery(z, z, P256.mod_field, pool) != 1
        or BN_mod_mul_montgomery(z, z, z, P256.mod_field, pool) != 1
        or BN_mod_mul_montgomery(product, r, z, P256.mod_field, pool) != 1
    ):
        return -1
    if BN_cmp(product, x) == 0:
        return 1
    if BN_add(r, r, P256.order) != 1:
        return -1
    if BN_cmp(r, P256.field) >= 0:
        return 0
    if BN_mod_mul_montgomery(product, r, z, P256.mod_field, pool) != 1:
        return -1
    return BN_cmp(product, x) == 0


cdef bint forge(Scratch *scratch, const unsigned char *point65, const unsigned char *seed64, unsigned char *digest,
                unsigned char *signature) noexcept nogil:
    """A digest and its signature by this key, for a self-test: made without the private key, which nobody here has.

    Take any a and b: R = a G + b Q, r = x(R), s = r / b, and the signature is good for the digest a s; a digest of
    which nobody knows a message, which is why this breaks nothing.
    """
    cdef BN_CTX *pool = scratch.pool
    cdef BIGNUM *a = scratch.number[0]
    cdef BIGNUM *b = scratch.number[1]
    cdef BIGNUM *r = scratch.number[2]
    cdef BIGNUM *s = scratch.number[3]
    return (
        BN_bin2bn(seed64, 32, a) is not NULL and BN_bin2bn(seed64 + 32, 32, b) is not NULL
        and BN_nnmod(a, a, P256.order, pool) == 1 and BN_nnmod(b, b, P256.order, pool) == 1
        and EC_POINT_oct2point(P256.group, scratch.point[0], point65, 65, pool) == 1
        and EC_POINT_mul(P256.group, scratch.point[1], a, scratch.point[0], b, pool) == 1
        and EC_POINT_get_affine_coordinates(P256.group, scratch.point[1], r, NULL, pool) == 1
        and BN_nnmod(r, r, P256.order, pool) == 1
        and BN_mod_inverse(s, b, P256.order, pool) is not NULL
        and BN_mod_mul(s, s, r, P256.order, pool) == 1
        and BN_mod_mul(a, a, s, P256.order, pool) == 1
        and BN_bn2binpad(a, digest, 32) == 32
        and BN_bn2binpad(r, signature, 32) == 32
        and BN_bn2binpad(s, signature + 32, 32) == 32
    )
