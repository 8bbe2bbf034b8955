# The compiled twin of casstore/kernels/_cut_py.py: same cuts.
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from casstore.kernels._cut_py import segments

IMPLEMENTATION = "compiled"

cdef extern from "cut.h" nogil:
    int CUT_OK, CUT_RANGE
    ctypedef enum cut_kernel:
        CUT_BEST
        CUT_SCALAR
        CUT_AVX2
    ctypedef struct cut_limits:
        uint64_t minimum, average, maximum
    int cut_usable(cut_kernel kernel)
    int cut_segments(cut_kernel kernel, const uint8_t *data, uint64_t size, const uint64_t *starts,
                     const uint64_t *lengths, const uint8_t *whole, size_t n, int final, cut_limits limits,
                     uint64_t *chunk_starts, uint32_t *chunk_lengths, size_t room, size_t *count, uint64_t *tail)

_KERNELS = {"avx2": CUT_AVX2, "scalar": CUT_SCALAR}
#: Names of the kernels that this CPU can run, the one that `cut` takes first.
KERNELS = tuple(name for name, kernel in _KERNELS.items() if cut_usable(kernel))


def cut(buf, starts, lengths, whole, final, minimum, average, maximum):
    return cut_with(KERNELS[0], buf, starts, lengths, whole, final, minimum, average, maximum)


def cut_with(kernel, buf, starts, lengths, whole, final, minimum, average, maximum):
    """`cut` by one of KERNELS."""
    starts, lengths, whole = segments(starts, lengths, whole)
    cdef const uint64_t[::1] starts_ = starts, lengths_ = lengths
    cdef const uint8_t[::1] whole_ = whole
    cdef cut_limits limits
    cdef cut_kernel kernel_ = _KERNELS[kernel]
    cdef size_t n = starts_.shape[0], count = 0, room
    cdef uint64_t tail = 0
    cdef int status, final_ = bool(final)
    cdef Py_buffer view
    if not 0 < minimum <= average <= maximum < 1 << 32:
        raise ValueError("cut limits out of range")
    limits.minimum, limits.average, limits.maximum = minimum, average, maximum
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        # At most this many chunks: all but the last of a segment are of the minimum at least.
        room = n + sum_of_quotients(lengths_, <uint64_t>view.len, limits.minimum)
        chunk_starts = np.empty(room, np.uint64)
        chunk_lengths = np.empty(room, np.uint32)
        status = run(kernel_, &view, starts_, lengths_, whole_, final_, limits, chunk_starts, chunk_lengths, &count,
                     &tail)
    finally:
        PyBuffer_Release(&view)
    if status != CUT_OK:
        raise ValueError("a segment outside the buffer, or cut limits out of range")
    return chunk_starts[:count].copy(), chunk_lengths[:count].copy(), tail


cdef size_t sum_of_quotients(const uint64_t[::1] lengths, uint64_t most, uint64_t divisor) noexcept nogil:
    cdef size_t total = 0
    cdef Py_ssize_t i
    for i in range(lengths.shape[0]):
        if lengths[i] <= most:
            total += lengths[i] // divisor
    return total


cdef int run(cut_kernel kernel, Py_buffer *view, const uint64_t[::1] starts, const uint64_t[::1] lengths,
             const uint8_t[::1] whole, int final, cut_limits limits, uint64_t[::1] chunk_starts,
             uint32_t[::1] chunk_lengths, size_t *count, uint64_t *tail):
    cdef size_t n = starts.shape[0], room = chunk_starts.shape[0]
    if n == 0:
        return CUT_OK
    with nogil:
        return cut_segments(kernel, <const uint8_t *>view.buf, view.len, &starts[0], &lengths[0], &whole[0], n, final,
                            limits, &chunk_starts[0], &chunk_lengths[0], room, count, tail)
