# What one HTTP request says about sessions, found in one pass over its raw headers. Nothing of it has been checked.
#
# Bytes in, slices out: a cookie is looked for when it is asked for, by its name, so that any name will do.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.tuple cimport PyTuple_GET_ITEM, PyTuple_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeLatin1
from libc.string cimport memchr, memcmp

from urllib.parse import unquote

cdef enum Field:
    AUTHORIZATION
    COOKIE
    RID
    ANTI_CSRF
    ST_AUTH_MODE
    ORIGIN
    SEC_FETCH_SITE
    SEC_FETCH_MODE
    NO_FIELD


cdef inline Field field_of(const char *name, Py_ssize_t size) noexcept nogil:
    if size == 3:
        return RID if memcmp(name, b"rid", 3) == 0 else NO_FIELD
    if size == 6:
        if memcmp(name, b"cookie", 6) == 0:
            return COOKIE
        return ORIGIN if memcmp(name, b"origin", 6) == 0 else NO_FIELD
    if size == 9:
        return ANTI_CSRF if memcmp(name, b"anti-csrf", 9) == 0 else NO_FIELD
    if size == 12:
        return ST_AUTH_MODE if memcmp(name, b"st-auth-mode", 12) == 0 else NO_FIELD
    if size == 13:
        return AUTHORIZATION if memcmp(name, b"authorization", 13) == 0 else NO_FIELD
    if size == 14 and memcmp(name, b"sec-fetch-", 10) == 0:
        if memcmp(name + 10, b"site", 4) == 0:
            return SEC_FETCH_SITE
        return SEC_FETCH_MODE if memcmp(name + 10, b"mode", 4) == 0 else NO_FIELD
    return NO_FIELD


cdef enum:
    BEARER_SIZE = 7  # "Bearer " and nothing else (wire.md section 2.1)


cdef inline bint is_blank(char c) noexcept nogil:
    return c == c" " or 9 <= c <= 13


cdef bint next_cookie(
    bytes name, const char **rest, const char *end, const char **value, Py_ssize_t *value_size
) noexcept:
    """The next cookie of this name that is not empty, from ``rest`` on, which goes behind it; False: there is none."""
    cdef const char *key = PyBytes_AS_STRING(name)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(name)
    cdef const char *start
    cdef const char *stop
    cdef const char *last
    while rest[0] < end:
        start = rest[0]
        stop = <const char *> memchr(start, c";", end - start)
        last = stop = end if stop == NULL else stop
        rest[0] = stop + 1
        while start < last and is_blank(start[0]):
            start += 1
        while last > start and is_blank((last - 1)[0]):
            last -= 1
        if last - start > size + 1 and start[size] == c"=" and memcmp(start, key, size) == 0:
            value[0] = start + size + 1
            value_size[0] = last - value[0]
            return True
    return False


@cython.final
cdef class Incoming:
    """What one request says about sessions. Nothing of it has been checked.

    Args:
        headers: raw pairs with lower-case names, as ASGI hands them out. Several of one name are one list (RFC 9110
            section 5.3; cookies: RFC 9113 section 8.2.3): two Authorization headers make no token, rather than a choice
            between two.
    """

    cdef object headers
    cdef bytes authorization, cookie, rid, anti_csrf, st_auth_mode, origin, sec_fetch_site, sec_fetch_mode
    cdef readonly str bearer

    def __init__(self, headers):
        cdef bytes name, value
        cdef Field field
        self.bearer = ""
        self.headers = headers = headers if type(headers) is list else list(headers)
        for name, value in headers:
            if name is None or value is None:
                raise TypeError("headers are pairs of bytes")
            field = field_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
            if field != NO_FIELD:
                found = self.at(field)
                self.put(field, value if found is None else found + (b"; " if field == COOKIE else b", ") + value)
        if self.authorization is not None and self.authorization.startswith(b"Bearer "):
            self.bearer = self.authorization[BEARER_SIZE:].strip().decode("latin-1")

    def get(self, bytes name not None, /):
        """The value of a header, or None."""
        cdef Field field = field_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
        value = self.at(field)
        if field == NO_FIELD:  # only functions of the application's ask for others
            value = b", ".join([one for key, one in self.headers if key == name]) or None
        return None if value is None else value.decode("latin-1").strip()

    def cookies(self, str name not None, /):
        """Every value of a cookie, in the order sent; those that are empty do not count."""
        cdef list found = []
        if self.cookie is None:
            return found
        cdef bytes wanted = name.encode()
        cdef const char *rest = PyBytes_AS_STRING(self.cookie)
        cdef const char *end = rest + PyBytes_GET_SIZE(self.cookie)
        cdef const char *value
        cdef Py_ssize_t size
        while next_cookie(wanted, &rest, end, &value, &size):
            text = PyUnicode_DecodeLatin1(value, size, NULL)
            found.append(text if memchr(value, c"%", size) == NULL else unquote(text))
        return found

    cdef bytes at(self, Field field):
        if field == AUTHORIZATION:
            return self.authorization
        if field == COOKIE:
            return self.cookie
        if field == RID:
            return self.rid
        if field == ANTI_CSRF:
            return self.anti_csrf
        if field == ST_AUTH_MODE:
            return self.st_auth_mode
        if field == ORIGIN:
            return self.origin
        if field == SEC_FETCH_SITE:
            return self.sec_fetch_site
        return self.sec_fetch_mode if field == SEC_FETCH_MODE else None

    cdef void put(self, Field field, bytes value):
        if field == AUTHORIZATION:
            self.authorization = value
        elif field == COOKIE:
            self.cookie = value
        elif field == RID:
            self.rid = value
        elif field == ANTI_CSRF:
            self.anti_csrf = value
        elif field == ST_AUTH_MODE:
            self.st_auth_mode = value
        elif field == ORIGIN:
            self.origin = value
        elif field == SEC_FETCH_SITE:
            self.sec_fetch_site = value
        elif field == SEC_FETCH_MODE:
            self.sec_fetch_mode = value


@cython.final
cdef class Shortcut:
    """Finds the session of a request that leaves nothing to decide, and whose token this process has verified before.

    It never refuses, and never verifies a signature. What is not plainly good it leaves to the rules, which decide
    about every request as if there were no short cut.

    Args:
        verifier: in whose cache tokens are looked up.
        bearer: whether a bearer token counts.
        access_cookie: the name of the cookie that counts; None: none does.
        legacy_cookie: the name of a cookie that leaves something to decide.
        proof: whether a cookie needs the header ``rid`` for any method but GET; None: that is for the rules to say.
        origins: where such a request has to come from, as ``Origin`` says it; empty: from anywhere.
    """

    cdef Verifier verifier
    cdef bint bearer
    cdef bytes access_cookie, legacy_cookie
    cdef object proof
    cdef frozenset origins

    def __init__(
        self, Verifier verifier not None, *, bint bearer, str access_cookie, str legacy_cookie not None, proof,
        origins
    ):
        self.verifier = verifier
        self.bearer = bearer
        self.access_cookie = None if access_cookie is None else access_cookie.encode()
        self.legacy_cookie = legacy_cookie.encode()
        self.proof = proof
        self.origins = frozenset([origin.encode() for origin in origins])

    def find(self, headers, str http_method not None):
        """What the verifier's ``view`` says of the request's token, and what carried it; None: ask the rules.

        Args:
            headers: as for `Incoming`.
            http_method: of the request; a WebSocket handshake is not for this.
        """
        cdef bytes authorization = None, cookie = None, origin = None
        cdef bint has_rid = False
        cdef Field field
        if type(headers) is not list or http_method == "OPTIONS" or http_method == "TRACE":
            return None
        for pair in <list>headers:
            if type(pair) is not tuple or PyTuple_GET_SIZE(pair) != 2:
                return None
            name, value = <object>PyTuple_GET_ITEM(pair, 0), <object>PyTuple_GET_ITEM(pair, 1)
            if type(name) is not bytes or type(value) is not bytes:
                return None
            field = field_of(PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
            if field == AUTHORIZATION:
                if authorization is not None:
                    return None
                authorization = value
            elif field == COOKIE:
                if cookie is not None:
                    return None
                cookie = value
            elif field == ORIGIN:
                if origin is not None:
                    return None
                origin = value
            elif field == RID:
                has_rid = True
        if cookie is not None and holds_cookie(cookie, self.legacy_cookie):
            return None
        if authorization is not None and self.bearer:
            session = self.by_bearer(authorization)
            return None if session is None else (session, "header")
        if cookie is None or self.access_cookie is None:
            return None
        if http_method != "GET" and (
            self.proof is None or (self.proof and not has_rid) or (self.origins and origin not in self.origins)
        ):
            return None
        session = self.by_cookie(cookie)
        return None if session is None else (session, "cookie")

    cdef object by_bearer(self, bytes authorization):
        cdef const char *text = PyBytes_AS_STRING(authorization)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(authorization)
        if size <= BEARER_SIZE or memcmp(text, b"Bearer ", BEARER_SIZE) != 0:
            return None
        if is_blank(text[BEARER_SIZE]) or is_blank(text[size - 1]):
            return None
        return self.verifier.seen(<const unsigned char *>text + BEARER_SIZE, size - BEARER_SIZE)

    cdef object by_cookie(self, bytes cookie):
        cdef const char *rest = PyBytes_AS_STRING(cookie)
        cdef const char *end = rest + PyBytes_GET_SIZE(cookie)
        cdef const char *value
        cdef const char *other
        cdef Py_ssize_t size, other_size
        if not next_cookie(self.access_cookie, &rest, end, &value, &size):
            return None
        if next_cookie(self.access_cookie, &rest, end, &other, &other_size):
            return None
        return self.verifier.seen(<const unsigned char *>value, size)


cdef bint holds_cookie(bytes cookie, bytes name) noexcept:
    cdef const char *rest = PyBytes_AS_STRING(cookie)
    cdef const char *value
    cdef Py_ssize_t size
    return next_cookie(name, &rest, rest + PyBytes_GET_SIZE(cookie), &value, &size)


@cython.final
cdef class Sending:
    """An ASGI ``send`` that knows whether the response has begun."""

    cdef object send
    cdef readonly bint started

    def __init__(self, send):
        self.send = send

    def __call__(self, message):
        if not self.started and message["type"] == "http.response.start":
            self.started = True
        return self.send(message)
