# Prepared verifying keys: read once, checked once, freed once, each bound to exactly one algorithm.
#
# A key's kind is fixed when it is made, by the static method that made it: a public key can never become an HMAC
# secret, whatever a token's header says. Refusing secrets that look like public keys (key_rules.pyx) is only the
# second fence.
#
# All that libcrypto must look up or allocate is looked up and allocated beforehand:
#   - digests are fetched once, when the module is imported;
#   - RSA, PSS, ECDSA: an EVP_PKEY_CTX with padding, salt length and digests set, reused for every EVP_PKEY_verify;
#   - Ed25519: a template EVP_MD_CTX, cloned for each check (EVP_DigestVerify is single-use on a context since 3.2);
#   - HMAC: the two states after the inner and the outer pad (RFC 2104), cloned for each check.
# A context serves one thread at a time. Each key keeps a list of spare ones, touched only while the GIL is held
# (without a GIL: inside the key's critical section); a thread inside libcrypto has taken its context off the list. A
# fork at such a moment leaks one context in the child and disturbs nothing.
#
# libcrypto's error queue belongs to the thread and is shared with Python's ssl module, which would take what we left
# in it for a fault of its own connection: whatever calls libcrypto here empties the queue on every way out, success
# included.

import hashlib

cimport cython
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from openssl cimport (
    BIGNUM,
    BN_bin2bn,
    BN_free,
    CRYPTO_memcmp,
    ERR_clear_error,
    ERR_peek_error,
    EVP_DigestFinal_ex,
    EVP_DigestInit_ex2,
    EVP_DigestUpdate,
    EVP_DigestVerify,
    EVP_DigestVerifyInit_ex,
    EVP_MD,
    EVP_MD_CTX,
    EVP_MD_CTX_copy_ex,
    EVP_MD_CTX_free,
    EVP_MD_CTX_new,
    EVP_MD_fetch,
    EVP_PKEY,
    EVP_PKEY_CTX,
    EVP_PKEY_CTX_free,
    EVP_PKEY_CTX_new_from_name,
    EVP_PKEY_CTX_new_from_pkey,
    EVP_PKEY_CTX_set_rsa_mgf1_md,
    EVP_PKEY_CTX_set_rsa_padding,
    EVP_PKEY_CTX_set_rsa_pss_saltlen,
    EVP_PKEY_CTX_set_signature_md,
    EVP_PKEY_PUBLIC_KEY,
    EVP_PKEY_free,
    EVP_PKEY_fromdata,
    EVP_PKEY_fromdata_init,
    EVP_PKEY_public_check,
    EVP_PKEY_verify,
    EVP_PKEY_verify_init,
    OPENSSL_cleanse,
    OPENSSL_VERSION_TEXT,
    OSSL_PARAM,
    OSSL_PARAM_BLD,
    OSSL_PARAM_BLD_free,
    OSSL_PARAM_BLD_new,
    OSSL_PARAM_BLD_push_BN,
    OSSL_PARAM_BLD_push_octet_string,
    OSSL_PARAM_BLD_push_utf8_string,
    OSSL_PARAM_BLD_to_param,
    OSSL_PARAM_free,
    OpenSSL_version,
    RSA_PKCS1_PADDING,
    RSA_PKCS1_PSS_PADDING,
)

from fastverify.errors import ConfigError

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
    MAX_DER = 3 + 2 * (2 + 67)  # a SEQUENCE of two INTEGERs of at most 66 bytes and a sign byte: P-521
    MAX_KEY_ID = 128  # bytes of UTF-8
    MAX_SPARE = 64  # contexts that a key keeps; when more threads are inside at once, the rest build and free their own

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


def openssl_info() -> dict:
    """The libcrypto at work: ``built_against`` and ``running``, in its own words, and ``linkage``, shared or static."""
    return {
        "built_against": FASTVERIFY_BUILT_AGAINST.decode("ascii", "replace"),
        "running": OpenSSL_version(OPENSSL_VERSION_TEXT).decode("ascii", "replace"),
        "linkage": FASTVERIFY_LINKAGE.decode("ascii", "replace"),
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


# What one check works with; borrowed from its key for as long as the check lasts.
cdef struct Context:
    EVP_MD_CTX *digest
    EVP_PKEY_CTX *pkey  # RSA, PSS and ECDSA only
    Context *next


cdef void free_context(Context *context) noexcept nogil:
    EVP_MD_CTX_free(context.digest)
    EVP_PKEY_CTX_free(context.pkey)
    free(context)


@cython.final
@cython.auto_pickle(False)
cdef class Key:
    """One verifying key, prepared, bound to exactly one algorithm and immutable.

    Made by `rsa`, `ec`, `ed25519` or `hmac`, which raise `ConfigError` for a key that must not be used. Keys are equal
    when algorithm, key id and key material are. Key material is never shown.
    """

    cdef readonly str algorithm
    cdef readonly object key_id
    cdef Algorithm number
    cdef Family family
    cdef unsigned char kid16[16]  # SHA-256(key id)[:16], as revocations name keys; zeros without a key id
    cdef size_t signature_length
    cdef const EVP_MD *md
    cdef size_t digest_length
    cdef EVP_PKEY *pkey
    cdef EVP_MD_CTX *inner  # HMAC: after the inner pad. Ed25519: the template
    cdef EVP_MD_CTX *outer  # HMAC: after the outer pad
    cdef Context *spare
    cdef int spares
    cdef bytes identity
    cdef tuple public

    def __init__(self):
        raise TypeError("made by Key.rsa, Key.ec, Key.ed25519 or Key.hmac")

    @staticmethod
    def rsa(str algorithm not None, key_id, bytes n not None, bytes e not None):
        """An RSA public key for RS256 to RS512 or PS256 to PS512: modulus and exponent, big-endian.

        RFC 7518 sections 3.3, 3.5 and 6.3.1. The modulus has 2048 to 8192 bits and no ROCA fingerprint; the exponent is
        odd and at least 65537.
        """
        cdef Key key = new_key(algorithm, key_id, (RSA, PSS))
        n, e = n.lstrip(b"\0"), e.lstrip(b"\0")
        check_rsa(int.from_bytes(n, "big"), int.from_bytes(e, "big"))
        key.signature_length = len(n)
        key.public = (("n", n), ("e", e))
        cdef BIGNUM *modulus = BN_bin2bn(n, <int>len(n), NULL)
        cdef BIGNUM *exponent = BN_bin2bn(e, <int>len(e), NULL)
        cdef OSSL_PARAM_BLD *numbers = OSSL_PARAM_BLD_new()
        try:
            if (
                modulus is NULL or exponent is NULL or numbers is NULL
                or OSSL_PARAM_BLD_push_BN(numbers, b"n", modulus) != 1
                or OSSL_PARAM_BLD_push_BN(numbers, b"e", exponent) != 1
            ):
                raise MemoryError
            key.load(b"RSA", numbers, "n")
        finally:
            OSSL_PARAM_BLD_free(numbers)
            BN_free(modulus)
            BN_free(exponent)
            clear_errors()
        return key.ready(n + e)

    @staticmethod
    def ec(str algorithm not None, key_id, bytes x not None, bytes y not None):
        """A public point for ES256 (P-256), ES384 (P-384) or ES512 (P-521): coordinates, big-endian and of full length.

        The point must lie on the curve of the algorithm (RFC 7518 sections 3.4 and 6.2.1).
        """
        cdef Key key = new_key(algorithm, key_id, (ECDSA,))
        curve, group, size = CURVES[key.number - ALG_ES256]
        for name, coordinate in (("x", x), ("y", y)):
            if len(coordinate) != size:
                raise ConfigError(name, f"a coordinate of {curve} has {size} bytes")
        key.signature_length = 2 * size
        key.public = (("crv", curve), ("x", x), ("y", y))
        point = b"\x04" + x + y
        cdef OSSL_PARAM_BLD *numbers = OSSL_PARAM_BLD_new()
        try:
            if (
                numbers is NULL
                or OSSL_PARAM_BLD_push_utf8_string(numbers, b"group", group, 0) != 1
                or OSSL_PARAM_BLD_push_octet_string(numbers, b"pub", <const char *>point, len(point)) != 1
            ):
                raise MemoryError
            key.load(b"EC", numbers, "x")
        finally:
            OSSL_PARAM_BLD_free(numbers)
            clear_errors()
        return key.ready(point)

    @staticmethod
    def ed25519(key_id, bytes x not None):
        """An Ed25519 public key (RFC 8037), 32 bytes, canonical and not of low order.

        Its ``algorithm`` is ``"EdDSA"``; tokens may say that or ``"Ed25519"`` (RFC 9864).
        """
        cdef Key key = new_key("EdDSA", key_id, (EDDSA,))
        check_ed25519(x)
        key.signature_length = 64
        key.public = (("crv", "Ed25519"), ("x", x))
        cdef OSSL_PARAM_BLD *numbers = OSSL_PARAM_BLD_new()
        try:
            if numbers is NULL or OSSL_PARAM_BLD_push_octet_string(numbers, b"pub", <const char *>x, len(x)) != 1:
                raise MemoryError
            key.load(b"ED25519", numbers, "x")
        finally:
            OSSL_PARAM_BLD_free(numbers)
            clear_errors()
        key.inner = EVP_MD_CTX_new()
        try:
            if key.inner is NULL or EVP_DigestVerifyInit_ex(key.inner, NULL, NULL, NULL, NULL, key.pkey, NULL) != 1:
                raise ConfigError("alg", "this libcrypto cannot verify Ed25519")
        finally:
            clear_errors()
        return key.ready(x)

    @staticmethod
    def hmac(str algorithm not None, key_id, bytes secret not None):
        """A shared secret for HS256, HS384 or HS512: at least 32, 48 or 64 bytes, and never the text of another key."""
        cdef Key key = new_key(algorithm, key_id, (HMAC,))
        check_secret(secret, key.digest_length)
        key.signature_length = key.digest_length
        if not key.pad(secret, len(secret)):
            raise MemoryError
        return key.ready(secret)

    def verify(self, bytes signing_input not None, bytes signature not None) -> bool:
        """Whether the raw signature, in the exact form of a JWS (RFC 7518 section 3), is this key's for these bytes."""
        cdef int verdict = self.check(signing_input, len(signing_input), signature, len(signature), True)
        if verdict < 0:
            raise MemoryError
        return verdict == 1

    def to_jwk(self):
        """The public JWK as a dict (RFC 7517), or None for an HMAC key, which has no public part."""
        if self.public is None:
            return None
        jwk = {"kty": KEY_TYPES[self.family], "use": "sig", "alg": self.algorithm}
        if self.key_id is not None:
            jwk["kid"] = self.key_id
        for name, value in self.public:
            jwk[name] = value if isinstance(value, str) else base64.urlsafe_b64encode(value).rstrip(b"=").decode()
        return jwk

    def __eq__(self, other):
        if not isinstance(other, Key):
            return NotImplemented
        return self.identity == (<Key>other).identity

    def __hash__(self):
        return hash(self.identity)

    def __repr__(self):
        return f"<Key {self.algorithm} kid={self.key_id!r}>"

    def __dealloc__(self):
        cdef Context *context
        while self.spare is not NULL:
            context = self.spare
            self.spare = context.next
            free_context(context)
        EVP_MD_CTX_free(self.inner)
        EVP_MD_CTX_free(self.outer)
        EVP_PKEY_free(self.pkey)

    # How a key is made.

    cdef load(self, const char *kind, OSSL_PARAM_BLD *numbers, str field):
        """The EVP_PKEY from its numbers, put through the checks that libcrypto has for public keys of its kind."""
        cdef EVP_PKEY_CTX *reader = NULL
        cdef EVP_PKEY_CTX *checker = NULL
        cdef OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(numbers)
        try:
            if params is NULL:
                raise MemoryError
            reader = EVP_PKEY_CTX_new_from_name(NULL, kind, NULL)
            if (
                reader is NULL
                or EVP_PKEY_fromdata_init(reader) != 1
                or EVP_PKEY_fromdata(reader, &self.pkey, EVP_PKEY_PUBLIC_KEY, params) != 1
            ):
                raise ConfigError(field, f"libcrypto refuses this {kind.decode()} public key")
            checker = EVP_PKEY_CTX_new_from_pkey(NULL, self.pkey, NULL)
            if checker is NULL or EVP_PKEY_public_check(checker) != 1:
                raise ConfigError(field, f"not a valid {kind.decode()} public key")
        finally:
            EVP_PKEY_CTX_free(checker)
            EVP_PKEY_CTX_free(reader)
            OSSL_PARAM_free(params)

    cdef bint pad(self, const unsigned char *secret, size_t length) noexcept:
        """RFC 2104: the digest states after key XOR ipad and key XOR opad."""
        cdef unsigned char block[MAX_BLOCK]
        cdef int size = BLOCK_LENGTH[(self.number - 1) % 3]
        cdef bint done
        cdef int i
        memset(block, 0, sizeof(block))
        if length <= <size_t>size:
            memcpy(block, secret, length)
            done = True
        else:
            done = whole_digest(self.md, secret, length, block)
        self.inner = EVP_MD_CTX_new()
        self.outer = EVP_MD_CTX_new()
        for i in range(size):
            block[i] ^= 0x36
        done = done and start_digest(self.inner, self.md, block, size)
        for i in range(size):
            block[i] ^= 0x36 ^ 0x5C
        done = done and start_digest(self.outer, self.md, block, size)
        OPENSSL_cleanse(block, sizeof(block))
        clear_errors()
        return done

    cdef Key ready(self, bytes material):
        """The last step: name the key by what it is, and prepare a first context, to see that the algorithm works."""
        kid = b"" if self.key_id is None else self.key_id.encode()
        named = f"{self.algorithm} {self.key_id is None} {len(kid)} ".encode() + kid
        self.identity = hashlib.sha256(named + material).digest()
        if self.key_id is not None:
            digest = hashlib.sha256(kid).digest()
            memcpy(self.kid16, <const unsigned char *>digest, 16)
        cdef Context *context = self.take()
        if context is NULL:
            raise ConfigError("alg", f"this libcrypto cannot verify {self.algorithm}")
        self.give(context)
        return self

    # How a key checks.

    cdef int check(self, const unsigned char *signing_input, size_t length, const unsigned char *signature,
                   size_t signature_length, bint release_gil) noexcept:
        """1: the signature is good; 0: it is not; -1: out of memory, no verdict.

        Called with the GIL held; with ``release_gil`` an asymmetric check runs without it, so the caller keeps the
        buffers and the key alive by references of its own.
        """
        # Before anything else: no form that is too short, too long, or padded ever reaches a decoder. For ECDSA this
        # check is the only one there is (RFC 7518 section 3.4); for RSA it is RFC 8017 section 8.1.2 step 1.
        if signature_length != self.signature_length or self.number == ALG_NONE:
            return 0
        cdef Context *context = self.take()
        cdef int verdict
        if context is NULL:
            return -1
        if release_gil and self.family != HMAC:
            with nogil:
                verdict = self.run(context, signing_input, length, signature)
        else:
            verdict = self.run(context, signing_input, length, signature)
        self.give(context)
        return verdict

    cdef int run(self, Context *context, const unsigned char *signing_input, size_t length,
                 const unsigned char *signature) noexcept nogil:
        cdef int verdict
        if self.family == HMAC:
            verdict = self.run_hmac(context, signing_input, length, signature)
        elif self.family == EDDSA:
            verdict = self.run_eddsa(context, signing_input, length, signature)
        else:
            verdict = self.run_digest(context, signing_input, length, signature)
        clear_errors()
        return verdict

    cdef int run_hmac(self, Context *context, const unsigned char *signing_input, size_t length,
                      const unsigned char *signature) noexcept nogil:
        cdef unsigned char tag[MAX_DIGEST]
        if (
            EVP_MD_CTX_copy_ex(context.digest, self.inner) != 1
            or EVP_DigestUpdate(context.digest, signing_input, length) != 1
            or EVP_DigestFinal_ex(context.digest, tag, NULL) != 1
            or EVP_MD_CTX_copy_ex(context.digest, self.outer) != 1
            or EVP_DigestUpdate(context.digest, tag, self.digest_length) != 1
            or EVP_DigestFinal_ex(context.digest, tag, NULL) != 1
        ):
            return -1
        return CRYPTO_memcmp(tag, signature, self.digest_length) == 0

    cdef int run_eddsa(self, Context *context, const unsigned char *signing_input, size_t length,
                       const unsigned char *signature) noexcept nogil:
        if EVP_MD_CTX_copy_ex(context.digest, self.inner) != 1:
            return -1
        return EVP_DigestVerify(context.digest, signature, self.signature_length, signing_input, length) == 1

    cdef int run_digest(self, Context *context, const unsigned char *signing_input, size_t length,
                        const unsigned char *signature) noexcept nogil:
        cdef unsigned char digest[MAX_DIGEST]
        cdef unsigned char der[MAX_DER]
        cdef size_t signature_length = self.signature_length
        if (
            not start_digest(context.digest, self.md, signing_input, length)
            or EVP_DigestFinal_ex(context.digest, digest, NULL) != 1
        ):
            return -1
        if self.family == ECDSA:
            signature_length = der_from_p1363(signature, signature_length // 2, der)
            signature = der
        return EVP_PKEY_verify(context.pkey, signature, signature_length, digest, self.digest_length) == 1

    # The spare contexts.

    cdef Context *take(self) noexcept:
        cdef Context *context
        with cython.critical_section(self):
            context = self.spare
            if context is not NULL:
                self.spare = context.next
                self.spares -= 1
        return context if context is not NULL else self.new_context()

    cdef void give(self, Context *context) noexcept:
        cdef bint kept = False
        with cython.critical_section(self):
            if self.spares < MAX_SPARE:
                context.next = self.spare
                self.spare = context
                self.spares += 1
                kept = True
        if not kept:
            free_context(context)

    cdef Context *new_context(self) noexcept:
        cdef Context *context = <Context *>calloc(1, sizeof(Context))
        if context is NULL:
            return NULL
        context.digest = EVP_MD_CTX_new()
        if context.digest is NULL or (self.pkey is not NULL and self.family != EDDSA and not self.prepare(context)):
            free_context(context)
            context = NULL
        clear_errors()
        return context

    cdef bint prepare(self, Context *context) noexcept:
        """Everything about the algorithm that does not depend on the token (RFC 7518 sections 3.3 to 3.5)."""
        context.pkey = EVP_PKEY_CTX_new_from_pkey(NULL, self.pkey, NULL)
        if context.pkey is NULL or EVP_PKEY_verify_init(context.pkey) != 1:
            return False
        if self.family == RSA and EVP_PKEY_CTX_set_rsa_padding(context.pkey, RSA_PKCS1_PADDING) != 1:
            return False
        if self.family == PSS and (
            EVP_PKEY_CTX_set_rsa_padding(context.pkey, RSA_PKCS1_PSS_PADDING) != 1
            or EVP_PKEY_CTX_set_rsa_pss_saltlen(context.pkey, <int>self.digest_length) != 1
            or EVP_PKEY_CTX_set_rsa_mgf1_md(context.pkey, self.md) != 1
        ):
            return False
        return EVP_PKEY_CTX_set_signature_md(context.pkey, self.md) == 1


cdef Key new_key(str algorithm, key_id, tuple families):
    """An empty key for this algorithm, which must be of one of these families."""
    cdef Key key = Key.__new__(Key)
    name = algorithm.encode("utf-8", "replace")
    cdef Algorithm number = algorithm_number(name, len(name))
    if number == ALG_NONE:
        raise ConfigError("alg", f"{algorithm[:32]!r} is not an algorithm of ours")
    if (number - 1) // 3 not in families:
        raise ConfigError("alg", f"{algorithm} does not go with this kind of key")
    if key_id is not None:
        if not isinstance(key_id, str):
            raise TypeError("a key id is a str or None")
        try:
            length = len(key_id.encode())
        except UnicodeEncodeError:
            raise ConfigError("kid", "the key id is not Unicode text") from None
        if not 1 <= length <= MAX_KEY_ID:
            raise ConfigError("kid", f"a key id has 1 to {MAX_KEY_ID} bytes")
    key.algorithm = ALGORITHMS[number - 1]
    key.key_id = key_id
    key.number = number
    key.family = <Family>((number - 1) // 3)
    key.md = DIGESTS[(number - 1) % 3]
    key.digest_length = DIGEST_LENGTH[(number - 1) % 3]
    return key


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
