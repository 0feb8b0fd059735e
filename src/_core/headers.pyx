# What one HTTP request says about sessions, found in one pass over its raw headers. Nothing of it has been checked.
#
# Bytes in, slices out: a cookie is looked for when it is asked for, by its name, so that any name will do.

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
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


cdef inline bint is_blank(char c) noexcept nogil:
    return c == c" " or 9 <= c <= 13


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
        # The scheme is compared exactly (wire.md section 2.1).
        if self.authorization is not None and self.authorization.startswith(b"Bearer "):
            self.bearer = self.authorization[7:].strip().decode("latin-1")

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
        cdef const char *key = PyBytes_AS_STRING(wanted)
        cdef Py_ssize_t size = PyBytes_GET_SIZE(wanted)
        cdef const char *start = PyBytes_AS_STRING(self.cookie)
        cdef const char *end = start + PyBytes_GET_SIZE(self.cookie)
        cdef const char *stop
        cdef const char *last
        while start < end:
            stop = <const char *> memchr(start, c";", end - start)
            if stop == NULL:
                stop = end
            last = stop
            while start < last and is_blank(start[0]):
                start += 1
            while last > start and is_blank((last - 1)[0]):
                last -= 1
            if last - start > size + 1 and start[size] == c"=" and memcmp(start, key, size) == 0:
                start += size + 1
                text = PyUnicode_DecodeLatin1(start, last - start, NULL)
                found.append(text if memchr(start, c"%", last - start) == NULL else unquote(text))
            start = stop + 1
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
