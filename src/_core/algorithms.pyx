# The algorithms (RFC 7518 section 3.1, RFC 8037 section 3.1), their digests, and what is said about libcrypto.
#
# libcrypto's error queue belongs to the thread and is shared with Python's ssl module, which would take what we left
# in it for a fault of its own connection: whatever calls libcrypto here empties the queue on every way out, success
# included.

from libc.string cimport memcmp

from openssl cimport (
    ERR_clear_error,
    ERR_peek_error,
    EVP_default_properties_is_fips_enabled,
    EVP_DigestFinal_ex,
    EVP_DigestInit_ex2,
    EVP_DigestUpdate,
    EVP_MD,
    EVP_MD_CTX,
    EVP_MD_CTX_free,
    EVP_MD_CTX_new,
    EVP_MD_fetch,
    FAST_ECDSA,
    FAST_HMAC,
    FAST_RSA,
    OPENSSL_VERSION_TEXT,
    OpenSSL_version,
)

cdef extern from *:
    """
    #ifndef FASTVERIFY_BUILT_AGAINST
    #define FASTVERIFY_BUILT_AGAINST "unknown"
    #define FASTVERIFY_LINKAGE "unknown"
    #endif
    """
    const char *FASTVERIFY_BUILT_AGAINST
    const char *FASTVERIFY_LINKAGE

cdef enum:
    MAX_DIGEST = 64  # bytes of a SHA-512
    MAX_BLOCK = 128  # bytes of its block
    MAX_KEY_ID = 128  # bytes of UTF-8

# In families of three by digest, so that (number - 1) / 3 is the family and (number - 1) % 3 the digest.
cdef enum Algorithm:
    ALG_NONE = 0
    ALG_HS256 = 1
    ALG_HS384 = 2
    ALG_HS512 = 3
    ALG_RS256 = 4
    ALG_RS384 = 5
    ALG_RS512 = 6
    ALG_PS256 = 7
    ALG_PS384 = 8
    ALG_PS512 = 9
    ALG_ES256 = 10
    ALG_ES384 = 11
    ALG_ES512 = 12
    ALG_EDDSA = 13

cdef enum Family:
    HMAC = 0
    RSA = 1
    PSS = 2
    ECDSA = 3
    EDDSA = 4

# RFC 7518 section 3.1, RFC 8037 section 3.1. "Ed25519" (RFC 9864) is the other name of what "EdDSA" means here.
cdef tuple ALGORITHMS = (
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)
cdef const char *FIVE_LETTERS = "HS256HS384HS512RS256RS384RS512PS256PS384PS512ES256ES384ES512EdDSA"
cdef tuple KEY_TYPES = ("oct", "RSA", "RSA", "EC", "OKP")
cdef tuple CURVES = (("P-256", b"prime256v1", 32), ("P-384", b"secp384r1", 48), ("P-521", b"secp521r1", 66))

cdef int DIGEST_LENGTH[3]
cdef int BLOCK_LENGTH[3]
DIGEST_LENGTH[:] = [32, 48, 64]
BLOCK_LENGTH[:] = [64, 128, 128]

cdef EVP_MD *DIGESTS[3]
DIGESTS[0] = EVP_MD_fetch(NULL, "SHA256", NULL)
DIGESTS[1] = EVP_MD_fetch(NULL, "SHA384", NULL)
DIGESTS[2] = EVP_MD_fetch(NULL, "SHA512", NULL)
clear_errors()
if DIGESTS[0] is NULL or DIGESTS[1] is NULL or DIGESTS[2] is NULL:
    raise ImportError("libcrypto offers no SHA-2: its configuration (openssl.cnf) loads no provider that does")


# The fast paths (fast_ecdsa.pyx, fast_rsa.pyx) lie outside libcrypto's providers, and so outside a validated module.
cdef bint FIPS = EVP_default_properties_is_fips_enabled(NULL) == 1
# Set when a fast path and EVP have contradicted each other: from then on EVP decides alone, in the whole process.
cdef int fast_paths_off = 0


cdef str fast_path_state(bint linked):
    if not linked:
        return "no: this libcrypto lacks the functions"
    if FIPS:
        return "no: FIPS mode"
    return "off: it contradicted EVP" if load_flag(&fast_paths_off) else "yes"


def openssl_info() -> dict:
    """The libcrypto at work, in words for people and logs.

    ``built_against`` and ``running``, as it calls itself; ``linkage``: shared or static; ``fast_ecdsa``, ``fast_rsa``
    and ``fast_hmac``: whether ES256, RS256 to PS512, HS256 to HS512 may be checked below EVP, "yes" or why not.
    """
    return {
        "built_against": FASTVERIFY_BUILT_AGAINST.decode("ascii", "replace"),
        "running": OpenSSL_version(OPENSSL_VERSION_TEXT).decode("ascii", "replace"),
        "linkage": FASTVERIFY_LINKAGE.decode("ascii", "replace"),
        "fast_ecdsa": fast_path_state(FAST_ECDSA),
        "fast_rsa": fast_path_state(FAST_RSA),
        "fast_hmac": fast_path_state(FAST_HMAC),
    }


cdef inline void clear_errors() noexcept nogil:
    """Leave the thread's error queue empty. Looking first is six times cheaper than clearing what is empty already."""
    if ERR_peek_error() != 0:
        ERR_clear_error()


cdef bint start_digest(EVP_MD_CTX *ctx, const EVP_MD *md, const unsigned char *data, size_t length) noexcept nogil:
    return ctx is not NULL and EVP_DigestInit_ex2(ctx, md, NULL) == 1 and EVP_DigestUpdate(ctx, data, length) == 1


cdef bint whole_digest(const EVP_MD *md, const unsigned char *data, size_t length, unsigned char *out) noexcept nogil:
    """The digest of the data in one step; False when out of memory."""
    cdef EVP_MD_CTX *ctx = EVP_MD_CTX_new()
    cdef bint done = start_digest(ctx, md, data, length) and EVP_DigestFinal_ex(ctx, out, NULL) == 1
    EVP_MD_CTX_free(ctx)
    clear_errors()
    return done


cdef int sha256(const unsigned char *data, size_t length, unsigned char *out32) noexcept nogil:
    """SHA-256 into 32 bytes; 1, or 0 when out of memory."""
    return whole_digest(DIGESTS[0], data, length, out32)


cdef Algorithm algorithm_number(const char *name, size_t length) noexcept nogil:
    """The algorithm that a header's ``alg`` names, byte for byte; ALG_NONE for anything else."""
    cdef int i
    if length == 5:
        for i in range(13):
            if memcmp(name, FIVE_LETTERS + 5 * i, 5) == 0:
                return <Algorithm>(i + 1)
    elif length == 7 and memcmp(name, b"Ed25519", 7) == 0:
        return ALG_EDDSA
    return ALG_NONE
