# The claims set (RFC 7519 section 4): the object that callers hold, and the rules of type, time, issuer and audience.
#
# Absent, malformed and wrong are three findings and three reasons: a malformed claim is never treated as absent,
# required or not. Times are compared as whole seconds against a given now; no sum of them can overflow, since a
# NumericDate above 2^53 - 1 is malformed.

from collections.abc import Mapping

cimport cython
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.string cimport memchr, memcmp, memcpy

from fastverify.errors import ExpiredToken, ImmatureToken

cdef extern from *:
    """
    #if PY_VERSION_HEX >= 0x030C0000
    #define fv_ready(text) 0  /* every str is */
    #else
    #define fv_ready(text) PyUnicode_READY(text)
    #endif
    """
    int fv_ready(object text) except -1

cdef extern from "Python.h":
    bint PyUnicode_Check(object value)
    bint PyUnicode_IS_ASCII(object text)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    bint PyBytes_Check(object value)
    char *PyBytes_AS_STRING(object value)
    Py_ssize_t PyBytes_GET_SIZE(object value)
    object PyBytes_FromStringAndSize(const char *value, Py_ssize_t size)

cdef enum:
    NBF_LEEWAY = 5  # seconds, for nbf and iat; a larger leeway replaces it
    MAX_LEEWAY = 60
    DATE_DIGITS = 16

cdef long long LAST_DATE = 9007199254740991  # 2^53 - 1: what every JSON parser holds exactly


@cython.final
cdef class Claims:
    """A claims set: a read-only mapping that decodes its members when asked, afresh each time.

    Nested values belong to whoever asked for them, so callers who share one cached object cannot disturb each other.
    Made by `Verifier.verify`; `parse_unverified` makes one that nobody has verified.
    """

    # What every hit reads lies together.
    cdef const unsigned char *text  # the token's characters
    cdef size_t size
    cdef unsigned long long generation  # of the verifier's keys, when last looked at
    cdef long long valid_from, valid_until  # with leeway; the second is exclusive
    cdef unsigned long long epoch  # of the revocation table, when last looked up
    cdef unsigned char handle16[16]
    cdef bint has_handle
    cdef long long exp, nbf, iat  # -1: absent
    cdef Key key
    cdef object given  # the token, a str or bytes
    cdef size_t signing_size  # of its signing input
    cdef unsigned char *payload  # the decoded claims set, JSON_PAD zero bytes after it
    cdef size_t payload_size
    cdef Member found[CLAIMS_NOTED]
    cdef unsigned char digest16[16]
    cdef unsigned char tenant16[16]
    cdef bint has_digest, has_tenant
    cdef readonly str algorithm
    cdef readonly str key_id
    cdef object memo  # what a verifier's view has made of these claims
    cdef PyObject *next_evicted  # in a list of entries that have left a cache

    def __init__(self):
        raise TypeError("made by Verifier.verify")

    def __dealloc__(self):
        PyMem_Free(self.payload)

    @property
    def _session(self):
        return self.view()

    @_session.setter
    def _session(self, value):
        self.keep_view(value)

    cdef object view(self):
        with cython.critical_section(self):
            return self.memo

    cdef int keep_view(self, value) except -1:
        with cython.critical_section(self):
            self.memo, value = value, self.memo  # the old one goes after this
        return 0

    @property
    def token(self) -> str:
        """The token that these claims were read from."""
        return self.given if isinstance(self.given, str) else (<bytes>self.given).decode("ascii")

    @property
    def subject(self):
        """``sub``, or None."""
        return self.noted(SUB)

    @property
    def issuer(self):
        """``iss``, or None."""
        return self.noted(ISS)

    @property
    def expires_at(self) -> int:
        """``exp`` in seconds since 1970. An unverified token may lack it: then 0, long ago."""
        return self.exp if self.exp >= 0 else 0

    @property
    def issued_at(self):
        """``iat`` in seconds since 1970, or None."""
        return self.iat if self.iat >= 0 else None

    @property
    def not_before(self):
        """``nbf`` in seconds since 1970, or None."""
        return self.nbf if self.nbf >= 0 else None

    def to_dict(self) -> dict:
        """The whole claims set as a dict of the caller's own."""
        cdef const unsigned char *cursor = skip_blanks(self.document())
        return build_object(&cursor, self.found[WHOLE].flags)

    def get(self, name, /, default=None):
        """The member's value, or the default."""
        cdef const unsigned char *value = self.look_up(name)
        return default if value == NULL else build(&value)

    def __getitem__(self, name):
        cdef const unsigned char *value = self.look_up(name)
        if value == NULL:
            raise KeyError(name)
        return build(&value)

    def __contains__(self, name):
        return self.look_up(name) != NULL

    def __len__(self):
        return len(names_of(self.document()))

    def __iter__(self):
        return iter(names_of(self.document()))

    def keys(self):
        """The member names, as of a dict."""
        return self.to_dict().keys()

    def values(self):
        """The member values, as of a dict."""
        return self.to_dict().values()

    def items(self):
        """Names and values, as of a dict."""
        return self.to_dict().items()

    def __eq__(self, other):
        if isinstance(other, Claims):
            return self.to_dict() == (<Claims>other).to_dict()
        return self.to_dict() == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __repr__(self):
        return (
            f"<Claims sub={self.subject!r} iss={self.issuer!r} exp={self.expires_at} alg={self.algorithm!r} "
            f"kid={self.key_id!r}>"
        )

    cdef const unsigned char *document(self) except NULL:
        if self.payload == NULL:  # only Claims.__new__ called by hand gets here
            raise TypeError("made by Verifier.verify")
        return self.payload

    cdef const unsigned char *look_up(self, name) except? NULL:
        """Where a member's value starts, or NULL."""
        cdef const unsigned char *document = self.document()
        cdef const unsigned char *text
        cdef Py_ssize_t size
        cdef int index
        if not isinstance(name, str):
            return NULL
        try:
            text = <const unsigned char *>PyUnicode_AsUTF8AndSize(name, &size)
        except UnicodeEncodeError:  # a lone surrogate, which no document holds
            return NULL
        index = noted_name(CLAIM_NAMES, text, size)
        if index < 0:
            return find(document, text, size)
        return document + self.found[index].start if self.found[index].kind != ABSENT else NULL

    cdef object noted(self, int index):
        cdef const unsigned char *value = self.document() + self.found[index].start
        return build(&value) if self.found[index].kind != ABSENT else None

    # Reading the payload.

    cdef int read(self, object given, const Compact *compact, const Member *found) except -1:
        """Take over a token and its scanned payload, and check the types of registered claims."""
        memcpy(self.found, found, sizeof(self.found))
        # A str subclass could carry anything along, and its characters lie elsewhere.
        self.given = given if type(given) is str or type(given) is bytes else plain_token(given)
        text_of(self.given, &self.text, &self.size)
        self.signing_size = compact.signing_size
        self.payload = <unsigned char *>PyMem_Malloc(compact.payload_size + JSON_PAD)
        if self.payload == NULL:
            raise MemoryError
        memcpy(self.payload, compact.payload, compact.payload_size + JSON_PAD)
        self.payload_size = compact.payload_size
        self.check_text(ISS)
        self.check_text(SUB)
        self.check_text(JTI)
        self.check_audience()
        self.exp = self.date(EXP)
        self.nbf = self.date(NBF)
        self.iat = self.date(IAT)
        return 0

    cdef int check_text(self, int index) except -1:
        if self.found[index].kind != STRING and self.found[index].kind != ABSENT:
            raise claim_refusal(CLAIM_MEMBERS[index], "malformed", "is not a string")
        return 0

    cdef int check_audience(self) except -1:
        """A string, or an array of at least one string and of nothing else (RFC 7519 section 4.1.3)."""
        cdef Member *aud = &self.found[AUD]
        cdef const unsigned char *p = self.payload + aud.start
        if aud.kind == ABSENT or aud.kind == STRING:
            return 0
        if p[0] == c"[":
            p = skip_blanks(p + 1)
            while p[0] == c'"':
                p = next_item(value_end(p))
                if p[0] == c"]":
                    return 0
        raise claim_refusal("aud", "malformed", "is neither a string nor an array of strings")

    cdef long long date(self, int index) except? -1:
        """A NumericDate in its one accepted form: digits, up to 2^53 - 1. -1 if there is none."""
        cdef Member *member = &self.found[index]
        cdef const unsigned char *p = self.payload + member.start
        cdef long long value = 0
        cdef unsigned int i
        if member.kind == ABSENT:
            return -1
        if member.kind == INTEGER and p[0] != c"-" and member.size <= DATE_DIGITS:
            for i in range(member.size):
                value = value * 10 + (p[i] - c"0")
            if value <= LAST_DATE:
                return value
        raise claim_refusal(CLAIM_MEMBERS[index], "malformed", "is not an integer of seconds from 0 to 2^53 - 1")

    cdef bint equals(self, const unsigned char *quoted, Py_ssize_t size, bytes expected) noexcept:
        """Whether the string value of `size` bytes, quotes included, is the expected one."""
        cdef unsigned char plain[MAX_STRING]
        cdef const unsigned char *text = quoted + 1
        size -= 2
        if memchr(text, c"\\", size) != NULL:
            size = unescape(text, size, plain)
            text = plain
        return size == len(expected) and memcmp(text, <const char *>expected, size) == 0

    # Rules.

    cdef int check_times(self, long long at) except -1:
        """`exp` exclusive, `nbf` and `iat` inclusive."""
        if at >= self.valid_until:
            raise ExpiredToken("exp has passed")
        if at < self.valid_from:
            if self.nbf > self.iat:
                raise ImmatureToken("nbf lies in the future", reason="nbf_in_future")
            raise ImmatureToken("iat lies in the future", reason="iat_in_future")
        return 0

    cdef int set_times(self, int leeway) except -1:
        if self.exp < 0:
            raise claim_refusal("exp", "missing", "is missing")
        self.valid_until = self.exp + leeway
        self.valid_from = max(self.nbf, self.iat) - max(leeway, NBF_LEEWAY)
        return 0

    cdef int check_issuer(self, bytes issuer) except -1:
        cdef Member *iss = &self.found[ISS]
        if issuer is None:
            return 0
        if iss.kind == ABSENT:
            raise claim_refusal("iss", "missing", "is missing")
        if not self.equals(self.payload + iss.start, iss.size, issuer):
            raise claim_refusal("iss", "mismatch", "is another issuer")
        return 0

    cdef int match_audience(self, tuple audiences) except -1:
        cdef Member *aud = &self.found[AUD]
        cdef const unsigned char *p = self.payload + aud.start
        cdef const unsigned char *end
        cdef bytes expected
        if audiences is None:
            return 0
        if aud.kind == ABSENT:
            raise claim_refusal("aud", "missing", "is missing")
        if p[0] == c"[":
            p = skip_blanks(p + 1)
        while p[0] == c'"':
            end = value_end(p)
            for expected in audiences:
                if self.equals(p, end - p, expected):
                    return 0
            if aud.kind == STRING:
                break
            p = next_item(end)
        raise claim_refusal("aud", "mismatch", "names another audience")

    # What the revocation table knows this token by; each is worked out when first needed.

    cdef int read_handle(self) except -1:
        """The 16 bytes of the UUID with which `sessionHandle` begins; what follows, from "_" on, is the tenant's."""
        cdef unsigned char plain[MAX_STRING]
        cdef const unsigned char *text = self.payload + self.found[HANDLE].start + 1
        cdef size_t size = self.found[HANDLE].size - 2
        self.check_text(HANDLE)
        self.check_text(TENANT)
        if self.found[HANDLE].kind == STRING:
            if self.found[HANDLE].flags & ESCAPES:
                size = unescape(text, size, plain)
                text = plain
            self.has_handle = (size == 36 or size > 36 and text[36] == c"_") and read_uuid(text, self.handle16)
        return 0

    cdef const unsigned char *token_target(self) except NULL:
        with cython.critical_section(self):
            if not self.has_digest:
                target16(self.text, self.signing_size, self.digest16)
                self.has_digest = True
        return self.digest16

    cdef const unsigned char *tenant_target(self) except? NULL:
        cdef unsigned char plain[MAX_STRING]
        cdef size_t size
        if self.found[TENANT].kind != STRING:
            return NULL
        with cython.critical_section(self):
            if not self.has_tenant:
                size = unescape(self.payload + self.found[TENANT].start + 1, self.found[TENANT].size - 2, plain)
                target16(plain, size, self.tenant16)
                self.has_tenant = True
        return self.tenant16


Mapping.register(Claims)


cdef inline int scan_claims(const Compact *compact, Member *found) noexcept nogil:
    """Accept or refuse the decoded payload as a claims set, and note its registered members; returns a Refusal."""
    if compact.payload_size == 0:
        return EMPTY_PART
    return scan(compact.payload, compact.payload_size, CLAIM_NAMES, found)


cdef object claims_refusal(int code):
    return refusal(code, "token" if code == EMPTY_PART else "claims")


cdef int target16(const unsigned char *data, size_t size, unsigned char *out) except -1:
    """The first 16 bytes of SHA-256. Failing to compute it must not read as "not revoked"."""
    cdef unsigned char digest[32]
    if sha256(data, size, digest) != 1:
        raise MemoryError
    memcpy(out, digest, 16)
    return 0


cdef bint read_uuid(const unsigned char *text, unsigned char *out) noexcept nogil:
    """The 16 bytes of 36 characters in UUID form (RFC 9562 section 4)."""
    cdef int i, value
    for i in range(8):
        if 2 <= i <= 5:  # 8-4-4-4-12 digits: a hyphen before these groups of four
            if text[0] != c"-":
                return False
            text += 1
        value = hex4(text)
        if value < 0:
            return False
        out[2 * i] = <unsigned char>(value >> 8)
        out[2 * i + 1] = <unsigned char>(value & 0xFF)
        text += 4
    return True


cdef object plain_token(object token):
    """An exact str or bytes with the characters of one of a subclass, of whose methods none is called."""
    if PyUnicode_Check(token):
        return str.__str__(token)
    return PyBytes_FromStringAndSize(PyBytes_AS_STRING(token), PyBytes_GET_SIZE(token))


cdef inline bint text_of(object token, const unsigned char **text, size_t *size) except? False:
    """Where a token's characters lie; False if they are not all ASCII. TypeError for what is neither str nor bytes."""
    if PyUnicode_Check(token):
        fv_ready(token)
        if not PyUnicode_IS_ASCII(token):
            return False
        text[0] = <const unsigned char *>PyUnicode_DATA(token)
        size[0] = PyUnicode_GET_LENGTH(token)
        return True
    if PyBytes_Check(token):
        text[0] = <const unsigned char *>PyBytes_AS_STRING(token)
        size[0] = PyBytes_GET_SIZE(token)
        return True
    raise TypeError(f"a token is a str or bytes, not {type(token).__name__}")
