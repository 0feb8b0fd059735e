# Python objects out of a scanned document, when somebody asks. Nothing is checked again.

cimport cython
from cpython.dict cimport PyDict_SetItem
from cpython.list cimport PyList_Append
from cpython.ref cimport Py_INCREF, Py_XDECREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.string cimport memcmp, memcpy, memset

cdef extern from "Python.h":
    void *PyUnicode_DATA(object text)
    void *characters "PyUnicode_DATA"(PyObject *text)
    double PyOS_string_to_double(const char *text, char **end, PyObject *overflow) except? -1.0
    const char *PyUnicode_AsUTF8AndSize(object text, Py_ssize_t *size) except NULL


cdef extern from *:
    """
    /* In C, since Cython counts a reference to a variable up and at once down again when a function returns it, which
       is slow from 3.12 on (sharing.pyx). */
    static inline PyObject *fv_ascii_text(const unsigned char *p, Py_ssize_t size) {
        PyObject *text = PyUnicode_New(size, 127);
        if (text != NULL)
            memcpy(PyUnicode_DATA(text), p, size);
        return text;
    }
    """
    object ascii_text "fv_ascii_text"(const unsigned char *p, Py_ssize_t size)
    # Of Cython's own: makes room beforehand where CPython has a function for it.
    dict new_dict "__Pyx_PyDict_NewPresized"(Py_ssize_t members)


cdef inline object string_value(const unsigned char *p, Py_ssize_t size, int flags):
    """The str of a scanned string, without its quotes."""
    return odd_string_value(p, size, flags) if flags else ascii_text(p, size)


cdef object odd_string_value(const unsigned char *p, Py_ssize_t size, int flags):
    cdef unsigned char plain[MAX_STRING]
    if flags & ESCAPES:
        size = unescape(p, size, plain)
        p = plain
    return PyUnicode_DecodeUTF8(<const char *>p, size, NULL)


# Member names come again with every token, so the latest str of each is kept: a fixed table, looked up by the name's
# head. They also come in the same order, so each remembers which came after it: usually the next name need not be
# looked up, nor its end looked for, but is only compared.
cdef enum:
    KEPT_BITS = 9
    KEPT_SIZE = 24
cdef struct KeptName:
    unsigned long long head
    Py_ssize_t size
    PyObject *name  # NULL: none is kept here
    KeptName *next
cdef KeptName kept_names[1 << KEPT_BITS]
cdef object kept_names_guard = object()  # its lock guards the table where there is no GIL


cdef object name_value(const unsigned char **cursor, KeptName **latest):
    """The str of the member name whose quote is at the cursor, which moves past it; mostly the same for the same name.

    `latest` is the kept name that came before it, or NULL. Called in the critical section of `kept_names_guard`.
    """
    cdef const unsigned char *p = cursor[0] + 1
    cdef const unsigned char *end
    cdef unsigned long long head
    cdef KeptName *kept = latest[0].next if latest[0] != NULL else NULL
    cdef int flags, error
    # A kept name holds no quote: where all of it stands at p, p's string is at least as long.
    if kept != NULL and is_kept(kept, p, fv_name_head(p, kept.size), kept.size) and p[kept.size] == c'"':
        latest[0] = kept
        cursor[0] = p + kept.size + 1
        return <object>kept.name
    end = string_end(p, &flags, &error)
    cursor[0] = end + 1
    if flags or end - p > KEPT_SIZE:
        latest[0] = NULL
        return string_value(p, end - p, flags)
    head = fv_name_head(p, end - p)
    kept = &kept_names[fv_mix(head) >> (64 - KEPT_BITS)]
    if latest[0] != NULL:
        latest[0].next = kept
    latest[0] = kept
    if not is_kept(kept, p, head, end - p):
        name = ascii_text(p, end - p)
        Py_INCREF(name)
        Py_XDECREF(kept.name)
        kept.name = <PyObject *>name
        kept.head = head
        kept.size = end - p
    return <object>kept.name


cdef inline bint is_kept(const KeptName *kept, const unsigned char *p, unsigned long long head,
                         Py_ssize_t size) noexcept:
    """Whether this kept name is what stands at p, with that head and size."""
    return (
        kept.head == head and kept.size == size and kept.name != NULL
        and (size <= 8 or memcmp(<const unsigned char *>characters(kept.name) + 8, p + 8, size - 8) == 0)
    )


cdef object integer_value(const unsigned char *p, const unsigned char *end):
    """The int of a scanned integer, of any size; independent of sys.set_int_max_str_digits."""
    cdef bint negative = p[0] == c"-"
    cdef long long part = 0, scale
    cdef object value = None
    p += negative
    if end - p <= 18:
        while p < end:
            part = part * 10 + (p[0] - c"0")
            p += 1
        return -part if negative else part
    while p < end:
        part = 0
        scale = 1
        while p < end and scale < 1000000000000000000LL:
            part = part * 10 + (p[0] - c"0")
            scale *= 10
            p += 1
        value = part if value is None else value * scale + part
    return -value if negative else value


cdef dict build_object(const unsigned char **cursor, Py_ssize_t members):
    """The dict of the object at the cursor, which moves past it; made for that many members."""
    cdef const unsigned char *p = skip_blanks(cursor[0] + 1)
    cdef const unsigned char *end
    cdef dict value = new_dict(members)
    cdef KeptName *latest = NULL
    cdef object name, member
    cdef int flags, error
    with cython.critical_section(kept_names_guard):
        while p[0] != c"}":
            name = name_value(&p, &latest)
            p = skip_blanks(skip_blanks(p) + 1)
            if p[0] == c'"':
                end = string_end(p + 1, &flags, &error)
                member = string_value(p + 1, end - p - 1, flags)
                p = end + 1
            else:
                cursor[0] = p
                member = build(cursor)
                p = cursor[0]
            PyDict_SetItem(value, name, member)
            p = next_item(p)
    cursor[0] = p + 1
    return value


cdef object build(const unsigned char **cursor):
    """The Python object of the value at the cursor, which moves past it."""
    cdef const unsigned char *p = cursor[0]
    cdef const unsigned char *end
    cdef char *stop = NULL
    cdef int flags, error
    cdef Kind kind
    cdef object value
    if p[0] == c'"':
        end = string_end(p + 1, &flags, &error)
        cursor[0] = end + 1
        return string_value(p + 1, end - p - 1, flags)
    if p[0] == c"{":
        return build_object(cursor, 0)
    if p[0] == c"[":
        value = []
        p = skip_blanks(p + 1)
        while p[0] != c"]":
            cursor[0] = p
            PyList_Append(value, build(cursor))
            p = next_item(cursor[0])
        cursor[0] = p + 1
        return value
    if p[0] == c"t":
        cursor[0] = p + 4
        return True
    if p[0] == c"f":
        cursor[0] = p + 5
        return False
    if p[0] == c"n":
        cursor[0] = p + 4
        return None
    end = number_end(p, &kind, &error)
    cursor[0] = end
    if kind == INTEGER:
        return integer_value(p, end)
    return PyOS_string_to_double(<const char *>p, &stop, NULL)


cdef inline const unsigned char *next_item(const unsigned char *p) noexcept nogil:
    """From the end of a value to the next one, or to the bracket that closes them."""
    p = skip_blanks(p)
    return skip_blanks(p + 1) if p[0] == c"," else p


cdef const unsigned char *value_end(const unsigned char *p) noexcept nogil:
    """Past the scanned value at p."""
    cdef int depth = 0, flags, error
    cdef Kind kind
    while True:
        if p[0] == c'"':
            p = string_end(p + 1, &flags, &error) + 1
        elif p[0] == c"{" or p[0] == c"[":
            depth += 1
            p += 1
        elif p[0] == c"}" or p[0] == c"]":
            depth -= 1
            p += 1
        elif p[0] == c"-" or is_digit(p[0]):
            p = number_end(p, &kind, &error)
        else:  # a comma, colon or blank, or a letter of a literal
            p += 1
            if depth == 0:
                while c"a" <= p[0] <= c"z":
                    p += 1
        if depth == 0:
            return p


cdef const unsigned char *find(const unsigned char *p, const unsigned char *name, size_t size) noexcept nogil:
    """The value of a member of the scanned top object at p, or NULL."""
    cdef unsigned char plain[MAX_STRING]
    cdef const unsigned char *end
    cdef int flags, error
    cdef bint same
    p = skip_blanks(skip_blanks(p) + 1)
    while p[0] != c"}":
        end = string_end(p + 1, &flags, &error)
        if flags & ESCAPES:
            same = unescape(p + 1, end - p - 1, plain) == size and memcmp(plain, name, size) == 0
        else:
            same = <size_t>(end - p - 1) == size and memcmp(p + 1, name, size) == 0
        p = skip_blanks(skip_blanks(end + 1) + 1)
        if same:
            return p
        p = next_item(value_end(p))
    return NULL


cdef list names_of(const unsigned char *p):
    """The member names of the scanned top object at p, in their order."""
    cdef list names = []
    cdef KeptName *latest = NULL
    p = skip_blanks(skip_blanks(p) + 1)
    with cython.critical_section(kept_names_guard):
        while p[0] != c"}":
            names.append(name_value(&p, &latest))
            p = next_item(value_end(skip_blanks(skip_blanks(p) + 1)))
    return names


def parse_json(bytes data not None):
    """Parse one strict JSON object, exactly as claims sets are parsed.

    Strict means RFC 8259 and more: UTF-8 without byte order mark; no member name twice in one object; no lone
    surrogates; at most 8 levels, 128 members an object, 4 KiB a string or number, 16 KiB in all; no number beyond the
    range of a double except integers, whose value is exact.

    Raises:
        MalformedToken: with the ``reason``.
    """
    cdef unsigned char text[MAX_TOKEN + JSON_PAD]
    cdef size_t size = len(data)
    cdef const unsigned char *cursor
    cdef int code
    if size > MAX_TOKEN:
        raise refusal(TOO_LARGE, "")
    memcpy(text, <const char *>data, size)
    memset(text + size, 0, JSON_PAD)
    code = scan(text, size, NO_NAMES, NULL)
    if code != FINE:
        raise refusal(code, "")
    cursor = skip_blanks(text)
    return build(&cursor)
