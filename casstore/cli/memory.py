"""The C library's allocator, set for what casstore does: buffers of about a MiB, made and dropped by the thousand."""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 32 << 20
_KEPT = 256 << 20


def keep_freed() -> None:
    """Let freed memory be used again rather than given back to the kernel at once: a tenth of a load went into page
    faults. Other C libraries than glibc are left alone. Source: mallopt(3)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)


def many_objects() -> None:
    """For commands that keep an object for each file of an image, none of them in a cycle: looking for cycles again and
    again took a sixth of the time."""
    gc.disable()
