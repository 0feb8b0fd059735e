"""What this process holds."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

STATM, DESCRIPTORS = Path("/proc/self/statm"), Path("/proc/self/fd")


class _Mallinfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keep",
        )
    ]


def allocated_bytes() -> int | None:
    """What has been allocated from the C library and not been freed, to the byte; None where it does not say (glibc
    does). Python's small objects are not in it: they come out of pages that Python keeps."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return None
    mallinfo2.restype = _Mallinfo2
    info = mallinfo2()
    return int(info.uordblks + info.hblkhd)


def resident_bytes() -> int:
    """Physical memory in use."""
    return int(STATM.read_text().split()[1]) * resource.getpagesize()


def open_descriptors() -> int:
    return len(os.listdir(DESCRIPTORS))
