# What the fuzz targets call: functions of the core that Python does not see. This fragment is the last one of a core
# that is built for fuzzing, and of no other (tests/instrumented.py).
#
# Every buffer is of the size that the function's contract asks for and not a byte larger, so that AddressSanitizer sees
# what goes beyond it.

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset


cdef unsigned char *copy_of(bytes text, size_t pad) except NULL:
    """A copy on the heap, followed by zeros."""
    cdef size_t size = len(text)
    cdef unsigned char *copy = <unsigned char *>malloc(size + pad)
    if copy == NULL:
        raise MemoryError
    memcpy(copy, <const char *>text, size)
    memset(copy + size, 0, pad)
    return copy


cdef str reason_of(int code):
    return None if code == FINE else REFUSALS[code][1]


def fuzz_base64url(bytes text not None):
    """The bytes that the text decodes to, or None."""
    cdef Py_ssize_t size = len(text)
    cdef unsigned char *characters = copy_of(text, 0)
    cdef unsigned char *out = copy_of(b"", (size + 3) // 4 * 3 + BASE64URL_SLACK)
    cdef Py_ssize_t decoded = base64url_decode(characters, size, out)
    try:
        return None if decoded < 0 else out[:decoded]
    finally:
        free(characters)
        free(out)


def fuzz_scan(bytes document not None, str names not None):
    """Scan a document, with the members noted that `names` says: "claims", "header" or none.

    Returns:
        The reason of the refusal or None; the object; the text of every member that was noted.
    """
    cdef Names which = {"claims": CLAIM_NAMES, "header": HEADER_NAMES}.get(names, NO_NAMES)
    cdef size_t room = CLAIMS_NOTED if which == CLAIM_NAMES else HEADER_NOTED if which == HEADER_NAMES else 0
    cdef tuple members = {"claims": CLAIM_MEMBERS, "header": HEADER_MEMBERS}.get(names, ())
    cdef unsigned char *text = copy_of(document, JSON_PAD)
    cdef const unsigned char *cursor = skip_blanks(text)
    cdef Member *found = <Member *>copy_of(b"", room * sizeof(Member))
    cdef int code = scan(text, len(document), which, found)
    try:
        if code != FINE:
            return reason_of(code), None, {}
        noted = {
            name: document[found[i].start:found[i].start + found[i].size]
            for i, name in enumerate(members) if found[i].kind != ABSENT
        }
        return None, build(&cursor), noted
    finally:
        free(found)
        free(text)


def fuzz_header(bytes segment not None):
    """Read a protected header, of which read_header is never given more than MAX_SEGMENT characters.

    Returns:
        The reason of the refusal or None; alg, kid and typ as bytes, or None where absent.
    """
    cdef unsigned char *characters = copy_of(segment[:MAX_SEGMENT], 0)
    cdef Header header
    cdef int code = read_header(characters, min(len(segment), MAX_SEGMENT), &header)
    free(characters)
    if code != FINE:
        return reason_of(code), ()
    return None, (text_bytes(&header.alg), text_bytes(&header.kid), text_bytes(&header.typ))


cdef object text_bytes(const Text *text):
    return None if text.size < 0 else text.bytes[:text.size]
