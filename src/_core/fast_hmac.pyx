# HMAC on the hash functions themselves: the states after the inner and the outer pad (RFC 2104) are copied as memory.
#
# EVP can copy a state only by allocating another one, twice for each check, which takes a seventh of all the time that
# a token of usual size needs. SHA256_Init and its kin are public functions of libcrypto, deprecated since 3.0, and
# their state has been the same plain structure since 1.0: 112 bytes for SHA-256, 216 for the others.

from libc.string cimport memcpy

from openssl cimport (
    CRYPTO_memcmp,
    OPENSSL_cleanse,
    SHA256_Final,
    SHA256_Init,
    SHA256_Update,
    SHA384_Final,
    SHA384_Init,
    SHA384_Update,
    SHA512_Final,
    SHA512_Init,
    SHA512_Update,
)

# More than a state takes, in words so that it is aligned.
cdef struct HashState:
    unsigned long long words[32]


cdef inline bint hash_start(int digest, HashState *state) noexcept nogil:
    if digest == 0:
        return SHA256_Init(state) == 1
    return (SHA384_Init(state) if digest == 1 else SHA512_Init(state)) == 1


cdef inline bint hash_add(int digest, HashState *state, const unsigned char *data, size_t length) noexcept nogil:
    if digest == 0:
        return SHA256_Update(state, data, length) == 1
    return (SHA384_Update(state, data, length) if digest == 1 else SHA512_Update(state, data, length)) == 1


cdef inline bint hash_finish(int digest, HashState *state, unsigned char *out) noexcept nogil:
    if digest == 0:
        return SHA256_Final(out, state) == 1
    return (SHA384_Final(out, state) if digest == 1 else SHA512_Final(out, state)) == 1


cdef int fast_hmac(int digest, const HashState *pads, const unsigned char *data, size_t length,
                   const unsigned char *tag) noexcept nogil:
    """1: the tag is the HMAC of the data under the key of these two states; 0: it is not; -1: ask EVP."""
    cdef HashState state
    cdef unsigned char ours[MAX_DIGEST]
    cdef int verdict = -1
    memcpy(&state, &pads[0], sizeof(state))
    if hash_add(digest, &state, data, length) and hash_finish(digest, &state, ours):
        memcpy(&state, &pads[1], sizeof(state))
        if hash_add(digest, &state, ours, DIGEST_LENGTH[digest]) and hash_finish(digest, &state, ours):
            verdict = CRYPTO_memcmp(ours, tag, DIGEST_LENGTH[digest]) == 0
    OPENSSL_cleanse(&state, sizeof(state))
    return verdict
