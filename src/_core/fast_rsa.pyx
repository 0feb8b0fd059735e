# RSA signatures under a key with the exponent 65537, below EVP: sixteen squarings and one multiplication on a
# Montgomery context that the key keeps, then a comparison with the block that must come out.
#
# EVP makes the modulus's Montgomery form and a window of powers anew for each check. The block of RSASSA-PKCS1-v1_5
# (RFC 8017 section 8.2.2) is known but for the digest, so it is compared and not parsed: there is no padding to be lax
# about. RSASSA-PSS (section 8.1.2) carries a salt and has to be taken apart, with the salt as long as the digest (RFC
# 7518 section 3.5). The digests, MGF1's too, are libcrypto's.

from libc.string cimport memcmp, memcpy, memset

from openssl cimport (
    BIGNUM,
    BN_bin2bn,
    BN_bn2binpad,
    BN_cmp,
    BN_mod_mul_montgomery,
    BN_MONT_CTX,
    BN_to_montgomery,
    EVP_DigestFinal_ex,
    EVP_DigestUpdate,
    EVP_MD,
    EVP_MD_CTX,
    EVP_PKEY,
    EVP_PKEY_CTX,
    EVP_PKEY_CTX_free,
    EVP_PKEY_CTX_new_from_pkey,
    EVP_PKEY_CTX_set_rsa_padding,
    EVP_PKEY_encrypt,
    EVP_PKEY_encrypt_init,
    RAND_bytes,
    RSA_NO_PADDING,
)

cdef enum:
    MAX_MODULUS = 1024  # bytes
    PSS_OVERHEAD = 2  # the 01 before the salt, the BC at the end

# DER of DigestInfo up to the digest (RFC 8017 section 9.2, note 1), for SHA-256, 384 and 512: the last byte of the
# object identifier and the two lengths differ.
cdef enum:
    DIGEST_INFO = 19


cdef void put_digest_info(unsigned char *out, int digest) noexcept nogil:
    cdef const unsigned char *common = (
        <const unsigned char *>b"\x30\x00\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x00\x05\x00\x04\x00"
    )
    memcpy(out, common, DIGEST_INFO)
    out[1] = <unsigned char>(DIGEST_INFO - 2 + DIGEST_LENGTH[digest])
    out[14] = <unsigned char>(1 + digest)
    out[18] = <unsigned char>DIGEST_LENGTH[digest]


cdef int public_power(Scratch *scratch, const BIGNUM *modulus, BN_MONT_CTX *montgomery, const unsigned char *number,
                      size_t length, unsigned char *out) noexcept nogil:
    """number^65537 mod modulus, both of `length` bytes: 1; 0 if the number is not below the modulus; -1: ask EVP."""
    cdef BIGNUM *base = scratch.number[0]
    cdef BIGNUM *power = scratch.number[1]
    if BN_bin2bn(number, <int>length, base) is NULL:
        return -1
    if BN_cmp(base, modulus) >= 0:  # RFC 8017 section 5.2.2 step 1: one number, one spelling
        return 0
    if BN_to_montgomery(power, base, montgomery, scratch.pool) != 1:
        return -1
    for _ in range(16):
        if BN_mod_mul_montgomery(power, power, power, montgomery, scratch.pool) != 1:
            return -1
    # With one factor in Montgomery form and one that is not, the product is plain.
    if BN_mod_mul_montgomery(power, power, base, montgomery, scratch.pool) != 1:
        return -1
    return 1 if BN_bn2binpad(power, out, <int>length) == <int>length else -1


cdef int pss_matches(EVP_MD_CTX *ctx, const EVP_MD *md, size_t size, unsigned char *block, size_t length,
                     int top_bits, const unsigned char *digest) noexcept nogil:
    """EMSA-PSS-VERIFY (RFC 8017 section 9.1.2) of a block as long as the modulus: 1, 0, or -1: ask EVP.

    The block is changed.
    `size` is the length of a digest and of the salt, `top_bits` how many bits the modulus has in its first byte.
    """
    cdef unsigned char mask[MAX_DIGEST]
    cdef unsigned char counter[4]
    cdef unsigned char zeros[8]
    cdef unsigned char *hash
    cdef size_t data, at, i
    if top_bits == 1:  # the encoded message is one bit shorter than the modulus, here one byte
        if block[0] != 0:
            return 0
        block += 1
        length -= 1
        top_bits = 9
    data = length - size - 1
    hash = block + data
    if length < 2 * size + PSS_OVERHEAD or block[length - 1] != 0xBC or block[0] >> (top_bits - 1):
        return 0
    memset(counter, 0, sizeof(counter))
    memset(zeros, 0, sizeof(zeros))
    at = 0
    while at < data:  # MGF1 (section B.2.1); a modulus of 8192 bits takes less than 256 blocks
        if (
            not start_digest(ctx, md, hash, size)
            or EVP_DigestUpdate(ctx, counter, sizeof(counter)) != 1
            or EVP_DigestFinal_ex(ctx, mask, NULL) != 1
        ):
            return -1
        for i in range(min(size, data - at)):
            block[at + i] ^= mask[i]
        at += size
        counter[3] += 1
    block[0] &= 0xFF >> (9 - top_bits)
    for i in range(data - size - 1):
        if block[i] != 0:
            return 0
    if block[data - size - 1] != 1:
        return 0
    if (
        not start_digest(ctx, md, zeros, sizeof(zeros))
        or EVP_DigestUpdate(ctx, digest, size) != 1
        or EVP_DigestUpdate(ctx, block + data - size, size) != 1
        or EVP_DigestFinal_ex(ctx, mask, NULL) != 1
    ):
        return -1
    return memcmp(mask, hash, size) == 0


cdef bint power_agrees(EVP_PKEY *pkey, Scratch *scratch, const BIGNUM *modulus, BN_MONT_CTX *montgomery,
                       size_t length) noexcept:
    """The self-test of a key: EVP raises the same numbers to the same powers."""
    cdef unsigned char number[MAX_MODULUS]
    cdef unsigned char ours[MAX_MODULUS]
    cdef unsigned char theirs[MAX_MODULUS]
    cdef size_t written
    cdef EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL)
    cdef bint agreed = (
        ctx is not NULL and EVP_PKEY_encrypt_init(ctx) == 1
        and EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING) == 1
    )
    for _ in range(2):
        if not agreed:
            break
        written = MAX_MODULUS
        agreed = RAND_bytes(number, <int>length) == 1
        number[0] = 0  # below the modulus
        agreed = (
            agreed
            and EVP_PKEY_encrypt(ctx, theirs, &written, number, length) == 1
            and written == length
            and public_power(scratch, modulus, montgomery, number, length, ours) == 1
            and memcmp(ours, theirs, length) == 0
        )
    EVP_PKEY_CTX_free(ctx)
    return agreed
