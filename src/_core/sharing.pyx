# What several threads may touch at once and no lock guards.
#
# With a GIL these are plain loads, stores and additions: the GIL orders them. On a free-threaded build each is atomic;
# a load that finds a value also finds what was written before that value was stored.

from cpython.ref cimport PyObject

cdef extern from *:
    """
    #include <stdint.h>
    #ifdef Py_GIL_DISABLED
    #define fv_load(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define fv_store(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)
    #define fv_count(p, by) ((void)__atomic_fetch_add(p, by, __ATOMIC_RELAXED))
    #define fv_hold(object) Py_INCREF(object)
    #define fv_let_go(object) Py_DECREF(object)
    #else
    /* Counting a reference up and down again costs more than it seems from 3.12 on: up it is stored as 32 bits, down it
       is loaded as 64, and the load has to wait until the store has left the processor's buffer. */
    #define fv_hold(object) ((void)(object))
    #define fv_let_go(object) ((void)(object))
    #define fv_load(p) (*(p))
    #define fv_store(p, value) ((void)(*(p) = (value)))
    #define fv_count(p, by) ((void)(*(p) += (by)))
    #endif
    #define fv_prefetch(p) __builtin_prefetch(p)
    /* Flags are also read and set by threads that do not hold the GIL. */
    #define fv_load_flag(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
    #define fv_store_flag(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)
    """
    void fv_prefetch(const void *p) noexcept nogil
    unsigned long long load "fv_load"(const unsigned long long *p) noexcept nogil
    void store "fv_store"(unsigned long long *p, unsigned long long value) noexcept nogil
    void count "fv_count"(unsigned long long *p, unsigned long long by) noexcept nogil
    # A reference that is needed only where no GIL keeps the object alive.
    void hold "fv_hold"(PyObject *value) noexcept
    void let_go "fv_let_go"(PyObject *value) noexcept
    int load_flag "fv_load_flag"(const int *p) noexcept nogil
    void store_flag "fv_store_flag"(int *p, int value) noexcept nogil
