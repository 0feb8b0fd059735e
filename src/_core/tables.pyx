# Which ES256 keys get a table (fast_ecdsa.pyx): the busiest of a verifier's, so many at the most.
#
# A key counts the checks that could have used one. At every BUSY of them it asks for a table. There is one as long as
# fewer than the limit have theirs; after that it takes the place of the idlest of them if it is used several times as
# often. Counts are halved at every such comparison, so that they speak of the recent past. Tables are built by a short
# thread, and until one is there EVP serves: no request waits for it.

import threading

cdef enum:
    BUSY = 256  # checks; a table costs about what it saves in twice as many
    BUSIER = 4  # times as busy as the idlest key that has a table


cdef unsigned long long forks = 0  # a thread that was building when the process forked is not in the child


cdef void forked() noexcept:
    global forks
    forks += 1


cdef int ask_for_table(tuple keys, Key key, Py_ssize_t limit) except -1:
    """See to a table for this busy ES256 key of a verifier's."""
    cdef Key other
    cdef Key idlest = None
    cdef Py_ssize_t tables = 0
    if is_building(key):
        return 0
    for other in keys:
        if is_building(other):
            tables += 1
        elif other.table is not None:
            tables += 1
            if idlest is None or other.uses < idlest.uses:
                idlest = other
    if tables >= limit:
        for other in keys:
            other.uses //= 2
        if idlest is None or key.uses < BUSIER * idlest.uses:
            return 0
        with cython.critical_section(idlest):
            idlest.table = None
    key.building = forks + 1
    try:
        threading.Thread(target=key.prepare, name="fastverify table").start()
    except RuntimeError:  # the interpreter is going down, or the system has no threads left
        key.building = 0
    return 0


cdef inline bint is_building(Key key) noexcept:
    return key.building == forks + 1


cdef Py_ssize_t build_tables(tuple keys, Py_ssize_t limit) except -1:
    """Build tables of ES256 keys now, in their order, until there are as many as the limit; how many there are."""
    cdef Key key
    cdef Py_ssize_t tables = sum([key.table is not None or is_building(key) for key in keys])
    for key in keys:
        if tables < limit and key.number == ALG_ES256 and key.table is None and not is_building(key) and key.prepare():
            tables += 1
    return tables
