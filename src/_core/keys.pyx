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
#   - HMAC: the two states after the inner and the outer pad (RFC 2104), cloned for each check;
#   - for the fast paths: the modulus in Montgomery form and the block to compare with; a table, once a key is busy.
# A context serves one thread at a time. Each key keeps a list of spare ones, touched only while the GIL is held
# (without a GIL: inside the key's critical section); a thread inside libcrypto has taken its context off the list. A
# fork at such a moment leaks one context in the child and disturbs nothing.

import hashlib

cimport cython
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from openssl cimport (
    BIGNUM,
    BN_bin2bn,
    BN_CTX,
    BN_CTX_free,
    BN_CTX_new,
    BN_free,
    BN_MONT_CTX,
    BN_MONT_CTX_free,
    BN_MONT_CTX_new,
    BN_MONT_CTX_set,
    EVP_DigestVerifyInit_ex,
    EVP_MD,
    EVP_MD_CTX,
    EVP_MD_CTX_free,
    EVP_MD_CTX_new,
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
    EVP_PKEY_verify_init,
    OPENSSL_cleanse,
    OSSL_PARAM,
    OSSL_PARAM_BLD,
    OSSL_PARAM_BLD_free,
    OSSL_PARAM_BLD_new,
    OSSL_PARAM_BLD_push_BN,
    OSSL_PARAM_BLD_push_octet_string,
    OSSL_PARAM_BLD_push_utf8_string,
    OSSL_PARAM_BLD_to_param,
    OSSL_PARAM_free,
    RSA_PKCS1_PADDING,
    RSA_PKCS1_PSS_PADDING,
)

from fastverify.errors import ConfigError

cdef enum:
    MAX_SPARE = 64  # contexts that a key keeps; when more threads are inside at once, the rest build and free their own

# What one check works with; borrowed from its key for as long as the check lasts.
cdef struct Context:
    EVP_MD_CTX *digest
    EVP_PKEY_CTX *pkey  # RSA, PSS and ECDSA only
    Scratch *scratch  # of the fast path, once it has been taken
    unsigned int accepted  # signatures, by the fast path with this context
    Context *next


cdef void free_context(Context *context) noexcept nogil:
    EVP_MD_CTX_free(context.digest)
    EVP_PKEY_CTX_free(context.pkey)
    free_scratch(context.scratch)
    free(context)


# A key lent out for one check, or for some in a row: its context, and what the fast path needs.
cdef struct Loan:
    Context *context
    PyObject *table  # a PointTable, owned; NULL: none
    const EC_GROUP *group  # its
    bint fast  # whether the fast path may be taken
    unsigned long long by_fast, by_evp, shadowed, undecided, contradicted  # what the checks came to


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
    cdef bint quick  # RSA, PSS and HMAC: the fast path may be taken; ES256: it may once there is a table
    cdef HashState pads[2]  # HMAC: inner and outer
    cdef BIGNUM *modulus
    cdef BN_MONT_CTX *montgomery
    cdef unsigned char *frame  # RSA: the block that a good signature gives, but for the digest at its end
    cdef int top_bits  # RSA, PSS: how many bits of the modulus are in its first byte
    cdef bytes point  # ES256: uncompressed
    cdef PointTable table
    cdef unsigned long long uses  # checks, since tables were last dealt out
    cdef unsigned long long building  # when a thread is at a table: 1 + the number of forks until then
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
            if e == b"\x01\x00\x01":
                key.modulus, modulus = modulus, NULL
                key.quick = key.make_quick(n)
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
        if key.number == ALG_ES256:
            key.point = point
            key.quick = P256.group is not NULL and not FIPS
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
        key.ready(secret)
        key.quick = key.quick and key.pads_agree()
        return key

    def verify(self, bytes signing_input not None, bytes signature not None, *, bint fast=False) -> bool:
        """Whether the raw signature, in the exact form of a JWS (RFC 7518 section 3), is this key's for these bytes.

        With ``fast`` the fast path is asked, where there is one: that of ES256 needs `prepare` first.
        """
        cdef const unsigned char *data = signing_input
        cdef const unsigned char *given = signature
        cdef size_t data_size = len(signing_input)
        cdef size_t given_size = len(signature)
        cdef Loan loan
        cdef int verdict
        self.lend(&loan, fast)
        with nogil:
            verdict = check_signature(self, &loan, data, data_size, given, given_size)
        self.take_back(&loan)
        if verdict < 0:
            raise check_fault(verdict)
        return verdict == 1

    def prepare(self) -> bool:
        """Make this key's checks as fast as they can be, now; whether they are faster than EVP's.

        For an ES256 key this computes a table and tests it, which takes some tens of milliseconds, without the GIL; a
        second call returns at once. A `Verifier` does it by itself, in another thread, for keys that are used often.
        """
        cdef EC_GROUP *group
        cdef const unsigned char *point
        if self.number != ALG_ES256 or not self.quick or self.table is not None:
            return self.quick
        point = self.point
        with nogil:
            group = build_table(point)
        table = self.tested(group)
        with cython.critical_section(self):
            self.table = table
            self.quick = table is not None
            self.building = 0
        return self.quick

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
        BN_MONT_CTX_free(self.montgomery)
        BN_free(self.modulus)
        free(self.frame)
        OPENSSL_cleanse(self.pads, sizeof(self.pads))

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
        for i in range(size):
            block[i] ^= 0x5C
        self.quick = FAST_HMAC and not FIPS and self.copy_pads(block, size)
        OPENSSL_cleanse(block, sizeof(block))
        clear_errors()
        return done

    cdef bint make_quick(self, bytes n) noexcept:
        """What the fast path of an RSA key needs, tested against EVP; False where it cannot be taken."""
        cdef size_t length = self.signature_length
        cdef size_t rest = length - DIGEST_INFO - self.digest_length
        cdef Scratch *scratch = NULL
        cdef BN_CTX *pool = NULL
        cdef bint done = False
        if not FAST_RSA or FIPS:
            return False
        self.top_bits = (<int>(<unsigned char>n[0])).bit_length()
        self.frame = <unsigned char *>calloc(1, length)
        self.montgomery = BN_MONT_CTX_new()
        pool = BN_CTX_new()
        scratch = new_scratch(NULL)
        if self.frame is not NULL and self.montgomery is not NULL and pool is not NULL and scratch is not NULL:
            memset(self.frame, 0xFF, rest)
            self.frame[0] = 0
            self.frame[1] = 1
            self.frame[rest - 1] = 0
            put_digest_info(self.frame + rest, (self.number - 1) % 3)
            done = (
                BN_MONT_CTX_set(self.montgomery, self.modulus, pool) == 1
                and power_agrees(self.pkey, scratch, self.modulus, self.montgomery, length)
            )
        free_scratch(scratch)
        BN_CTX_free(pool)
        clear_errors()
        return done

    cdef PointTable tested(self, EC_GROUP *group):
        """A new table as an object, if fast path and EVP agree about signatures that are good and some that are not."""
        cdef PointTable table
        cdef Loan loan
        cdef bint agreed
        if group is NULL:
            return None
        table = PointTable.__new__(PointTable)
        table.group = group
        self.lend(&loan, False)
        agreed = table_agrees(self, loan.context, group)
        self.take_back(&loan)
        return table if agreed else None

    cdef bint copy_pads(self, unsigned char *block, int size) noexcept:
        """The same two states for the fast path, from the padded key, which is changed."""
        cdef int digest = (self.number - 1) % 3
        cdef bint done
        cdef int i
        for i in range(size):
            block[i] ^= 0x36
        done = hash_start(digest, &self.pads[0]) and hash_add(digest, &self.pads[0], block, size)
        for i in range(size):
            block[i] ^= 0x36 ^ 0x5C
        return done and hash_start(digest, &self.pads[1]) and hash_add(digest, &self.pads[1], block, size)

    cdef Key ready(self, bytes material):
        """The last step: name the key by what it is, and prepare a first context, to see that the algorithm works."""
        kid = b"" if self.key_id is None else self.key_id.encode()
        named = f"{self.algorithm} {self.key_id is None} {len(kid)} ".encode() + kid
        self.identity = hashlib.sha256(named + material).digest()
        if self.key_id is not None:
            digest = hashlib.sha256(kid).digest()
            memcpy(self.kid16, <const unsigned char *>digest, 16)
        cdef Context *context = self.new_context()
        if context is NULL:
            raise ConfigError("alg", f"this libcrypto cannot verify {self.algorithm}")
        self.give(context)
        return self

    cdef bint pads_agree(self) except -1:
        """The self-test of an HMAC key: EVP accepts the tags of the fast path, and both refuse a changed one."""
        cdef unsigned char data[200]
        cdef unsigned char tag[MAX_DIGEST]
        cdef int digest = (self.number - 1) % 3
        cdef HashState state
        cdef bint agreed
        cdef size_t length
        cdef Loan loan
        memset(data, 0x5A, sizeof(data))
        self.lend(&loan, False)
        agreed = True
        for length in (0, 55, 64, 111, 128, 200):
            memcpy(&state, &self.pads[0], sizeof(state))
            agreed = agreed and hash_add(digest, &state, data, length) and hash_finish(digest, &state, tag)
            memcpy(&state, &self.pads[1], sizeof(state))
            agreed = (
                agreed and hash_add(digest, &state, tag, self.digest_length) and hash_finish(digest, &state, tag)
                and fast_hmac(digest, self.pads, data, length, tag) == 1
                and check_hmac(self, loan.context, data, length, tag) == 1
            )
            tag[length % self.digest_length] ^= 1
            agreed = (
                agreed and fast_hmac(digest, self.pads, data, length, tag) == 0
                and check_hmac(self, loan.context, data, length, tag) == 0
            )
        self.take_back(&loan)
        OPENSSL_cleanse(&state, sizeof(state))
        clear_errors()
        return agreed

    # Lending it out.

    cdef int lend(self, Loan *loan, bint fast) except -1:
        """Lend what checks with this key work with; with `fast`, the fast path's means too. Give it back in the end."""
        cdef Context *context
        memset(loan, 0, sizeof(Loan))
        with cython.critical_section(self):
            context = self.spare
            if context is not NULL:
                self.spare = context.next
                self.spares -= 1
            if fast and self.quick:
                loan.fast = self.number != ALG_ES256
                if self.table is not None:
                    loan.fast = True
                    loan.table = <PyObject *>self.table
                    loan.group = self.table.group
                    Py_INCREF(self.table)
        if context is NULL:
            context = self.new_context()
            if context is NULL:
                Py_XDECREF(loan.table)
                raise MemoryError
        loan.context = context
        if loan.fast and context.scratch is NULL and self.family != HMAC:
            context.scratch = new_scratch(P256.group if loan.table is not NULL else NULL)
            loan.fast = context.scratch is not NULL
        return 0

    cdef int take_back(self, Loan *loan) except -1:
        count(&self.uses, loan.by_fast + loan.by_evp)
        self.give(loan.context)
        Py_XDECREF(loan.table)
        return 0

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
        if context.digest is NULL or (self.pkey is not NULL and self.family != EDDSA and not self.set_up(context)):
            free_context(context)
            context = NULL
        clear_errors()
        return context

    cdef bint set_up(self, Context *context) noexcept:
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
