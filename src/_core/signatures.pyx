# Checking a signature: through EVP, or on a fast path that EVP keeps an eye on.
#
# EVP is the measure. A fast path (fast_ecdsa.pyx, fast_rsa.pyx) is taken where the key has been tested for it and the
# verifier allows it, and then: whenever libcrypto reports a fault in it, EVP decides; and of the signatures that it
# accepts with one context the first, and from then on one in SHADOW_EVERY, is put before EVP as well. Should EVP ever
# refuse one of those, the call raises, no token is accepted, and no fast path is taken any more in this process.
#
# HMAC needs no such watch, and is not counted: whoever wants a forged tag accepted must know what the fast path makes
# of his token, and that it makes the same as EVP is tested with each key.
#
# Nothing here touches a Python object, so all of it runs without the GIL.

from libc.string cimport memcmp, memcpy

from openssl cimport (
    CRYPTO_memcmp,
    EVP_DigestFinal_ex,
    EVP_DigestUpdate,
    EVP_DigestVerify,
    EVP_MD_CTX_copy_ex,
    EVP_PKEY_verify,
    RAND_bytes,
)

from fastverify.errors import CryptoFault

cdef extern from *:
    """
    /* For the test of what happens then: a build whose fast paths accept everything. */
    #ifdef FASTVERIFY_FAULTY_FAST_PATHS
    #define FV_FAST_VERDICT(verdict) 1
    #else
    #define FV_FAST_VERDICT(verdict) (verdict)
    #endif
    """
    int FV_FAST_VERDICT(int verdict) noexcept nogil

cdef enum:
    SHADOW_EVERY = 1024
    MAX_DER = 3 + 2 * (2 + 67)  # a SEQUENCE of two INTEGERs of at most 66 bytes and a sign byte: P-521

# What check_signature returns besides 1 and 0.
cdef enum:
    NO_VERDICT = -1  # libcrypto failed: out of memory
    CONTRADICTION = -2


cdef object check_fault(int verdict):
    """The exception for a check without a verdict."""
    if verdict == CONTRADICTION:
        return CryptoFault()
    return MemoryError()


cdef int check_signature(Key key, Loan *loan, const unsigned char *signing_input, size_t length,
                         const unsigned char *signature, size_t signature_length) noexcept nogil:
    """1: the signature is good; 0: it is not; below 0: no verdict. The caller keeps buffers, key and loan alive."""
    cdef unsigned char digest[MAX_DIGEST]
    cdef int verdict
    # Before anything else: no form that is too short, too long, or padded ever reaches a decoder. For ECDSA this
    # check is the only one there is (RFC 7518 section 3.4); for RSA it is RFC 8017 section 8.1.2 step 1.
    if signature_length != key.signature_length or key.number == ALG_NONE:
        return 0
    if key.family == HMAC:
        verdict = -1
        if loan.fast and not load_flag(&fast_paths_off):
            verdict = fast_hmac((key.number - 1) % 3, key.pads, signing_input, length, signature)
        if verdict < 0:
            verdict = check_hmac(key, loan.context, signing_input, length, signature)
    elif key.family == EDDSA:
        verdict = check_eddsa(key, loan.context, signing_input, length, signature)
    elif (
        not start_digest(loan.context.digest, key.md, signing_input, length)
        or EVP_DigestFinal_ex(loan.context.digest, digest, NULL) != 1
    ):
        verdict = NO_VERDICT
    else:
        verdict = check_digest(key, loan, digest, signature)
    clear_errors()
    return verdict


cdef int check_hmac(Key key, Context *context, const unsigned char *signing_input, size_t length,
                    const unsigned char *signature) noexcept nogil:
    cdef unsigned char tag[MAX_DIGEST]
    if (
        EVP_MD_CTX_copy_ex(context.digest, key.inner) != 1
        or EVP_DigestUpdate(context.digest, signing_input, length) != 1
        or EVP_DigestFinal_ex(context.digest, tag, NULL) != 1
        or EVP_MD_CTX_copy_ex(context.digest, key.outer) != 1
        or EVP_DigestUpdate(context.digest, tag, key.digest_length) != 1
        or EVP_DigestFinal_ex(context.digest, tag, NULL) != 1
    ):
        return NO_VERDICT
    return CRYPTO_memcmp(tag, signature, key.digest_length) == 0


cdef int check_eddsa(Key key, Context *context, const unsigned char *signing_input, size_t length,
                     const unsigned char *signature) noexcept nogil:
    if EVP_MD_CTX_copy_ex(context.digest, key.inner) != 1:
        return NO_VERDICT
    return EVP_DigestVerify(context.digest, signature, key.signature_length, signing_input, length) == 1


cdef int check_digest(Key key, Loan *loan, const unsigned char *digest, const unsigned char *signature) noexcept nogil:
    """RSA, PSS and ECDSA: the fast path if it may be taken, EVP if not, or if it does not know, or to look over it."""
    cdef int verdict
    cdef bint shadowed
    if not loan.fast or load_flag(&fast_paths_off):
        loan.by_evp += 1
        return check_by_evp(key, loan.context, digest, signature)
    verdict = FV_FAST_VERDICT(check_fast(key, loan, digest, signature))
    if verdict < 0:
        loan.undecided += 1
        loan.by_evp += 1
        return check_by_evp(key, loan.context, digest, signature)
    loan.by_fast += 1
    if verdict == 0:
        return 0
    shadowed = loan.context.accepted % SHADOW_EVERY == 0
    loan.context.accepted += 1
    if shadowed:
        loan.shadowed += 1
        if check_by_evp(key, loan.context, digest, signature) != 1:
            loan.contradicted += 1
            store_flag(&fast_paths_off, 1)
            return CONTRADICTION
    return 1


cdef int check_fast(Key key, Loan *loan, const unsigned char *digest, const unsigned char *signature) noexcept nogil:
    cdef unsigned char block[MAX_MODULUS]
    cdef size_t length = key.signature_length
    cdef Scratch *scratch = loan.context.scratch
    cdef int verdict
    if key.family == ECDSA:
        return fast_ecdsa(scratch, loan.group, signature, digest)
    verdict = public_power(scratch, key.modulus, key.montgomery, signature, length, block)
    if verdict != 1:
        return verdict
    if key.family == RSA:
        length -= key.digest_length
        return memcmp(block, key.frame, length) == 0 and memcmp(block + length, digest, key.digest_length) == 0
    return pss_matches(loan.context.digest, key.md, key.digest_length, block, length, key.top_bits, digest)


cdef int check_by_evp(Key key, Context *context, const unsigned char *digest,
                      const unsigned char *signature) noexcept nogil:
    cdef unsigned char der[MAX_DER]
    cdef size_t length = key.signature_length
    if key.family == ECDSA:
        length = der_from_p1363(signature, length // 2, der)
        signature = der
    return EVP_PKEY_verify(context.pkey, signature, length, digest, key.digest_length) == 1


cdef bint table_agrees(Key key, Context *context, const EC_GROUP *table) noexcept:
    """The self-test of an ES256 key's table: fast path and EVP say the same, about good signatures and damaged ones."""
    cdef unsigned char seed[64]
    cdef unsigned char digest[32]
    cdef unsigned char signature[64]
    cdef const unsigned char *point = key.point
    cdef Scratch *scratch = new_scratch(P256.group)
    cdef bint agreed = scratch is not NULL
    cdef int damaged
    for _ in range(4):
        agreed = (
            agreed and RAND_bytes(seed, sizeof(seed)) == 1 and forge(scratch, point, seed, digest, signature)
            and fast_ecdsa(scratch, table, signature, digest) == 1
            and check_by_evp(key, context, digest, signature) == 1
        )
        for damaged in (seed[0] & 31, 32 + (seed[1] & 31), 64 + (seed[2] & 31)):
            if damaged < 64:
                signature[damaged] ^= 1
            else:
                digest[damaged - 64] ^= 1
            agreed = (
                agreed and fast_ecdsa(scratch, table, signature, digest) == 0
                and check_by_evp(key, context, digest, signature) == 0
            )
            if damaged < 64:
                signature[damaged] ^= 1
            else:
                digest[damaged - 64] ^= 1
    free_scratch(scratch)
    clear_errors()
    return agreed


cdef size_t der_from_p1363(const unsigned char *signature, size_t half, unsigned char *out) noexcept nogil:
    """SEQUENCE { INTEGER r, INTEGER s } from r || s of ``half`` (at most 66) bytes each; returns its length (X.690)."""
    cdef size_t r_pad = sign_byte(signature, half)
    cdef size_t r_skip = leading_zeros(signature, half)
    cdef size_t s_pad = sign_byte(signature + half, half)
    cdef size_t s_skip = leading_zeros(signature + half, half)
    cdef size_t r_length = half - r_skip + r_pad
    cdef size_t s_length = half - s_skip + s_pad
    cdef size_t content = 4 + r_length + s_length
    cdef size_t at = 0
    out[0] = 0x30
    if content >= 128:
        out[1] = 0x81
        at = 1
    out[at + 1] = <unsigned char>content
    at = put_integer(out, at + 2, signature + r_skip, half - r_skip, r_pad)
    return put_integer(out, at, signature + half + s_skip, half - s_skip, s_pad)


cdef inline size_t leading_zeros(const unsigned char *number, size_t length) noexcept nogil:
    """How many of its zero bytes are superfluous; the last byte always stays, so zero is written as one 00."""
    cdef size_t i = 0
    while i + 1 < length and number[i] == 0:
        i += 1
    return i


cdef inline size_t sign_byte(const unsigned char *number, size_t length) noexcept nogil:
    """1 where the number's first significant bit would read as a sign."""
    return number[leading_zeros(number, length)] >> 7


cdef inline size_t put_integer(unsigned char *out, size_t at, const unsigned char *number, size_t length,
                               size_t pad) noexcept nogil:
    out[at] = 0x02
    out[at + 1] = <unsigned char>(length + pad)
    out[at + 2] = 0
    memcpy(out + at + 2 + pad, number, length)
    return at + 2 + pad + length
