"""The compiled twin of spans: a thin skin over spans.c."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from casstore.kernels._arrays import column, columns

cdef extern from "spans.h" nogil:
    ctypedef struct spans_source:
        const uint8_t *data
        uint64_t size
    int SPANS_OK, SPANS_NO_SOURCE, SPANS_OUTSIDE_SOURCE, SPANS_OUTSIDE_TARGET
    int spans_copy(uint8_t *, uint64_t, const uint64_t *, const spans_source *, size_t, const uint32_t *,
                   const uint64_t *, const uint64_t *, size_t, size_t *)
    int spans_equal(const uint8_t *, uint64_t, const uint64_t *, const uint8_t *, uint64_t, const uint64_t *,
                    const uint64_t *, size_t, size_t *, size_t *)

IMPLEMENTATION = "compiled"


cdef class _Sources:
    """Buffers held for as long as this object lives."""

    cdef Py_buffer *views
    cdef spans_source *sources
    cdef size_t held

    def __cinit__(self, sources):
        # a list of our own: what `sources` does while its buffers are taken cannot change how many there are
        cdef list buffers = list(sources)
        cdef size_t n = len(buffers)
        self.views = <Py_buffer *>PyMem_Calloc(n, sizeof(Py_buffer))
        self.sources = <spans_source *>PyMem_Calloc(n, sizeof(spans_source))
        if self.views == NULL or self.sources == NULL:
            raise MemoryError
        for buffer in buffers:
            PyObject_GetBuffer(buffer, &self.views[self.held], PyBUF_SIMPLE)
            self.sources[self.held].data = <const uint8_t *>self.views[self.held].buf
            self.sources[self.held].size = self.views[self.held].len
            self.held += 1

    cdef void release(self) noexcept:
        while self.held:
            self.held -= 1
            PyBuffer_Release(&self.views[self.held])

    def __dealloc__(self):
        self.release()
        PyMem_Free(self.views)
        PyMem_Free(self.sources)


def copy(dst, dst_starts, sources, which, src_starts, lengths):
    """`lengths[i]` bytes of `sources[which[i]]` at `src_starts[i]` to `dst` at `dst_starts[i]`, for every i."""
    cdef Py_buffer target
    cdef size_t n, bad = 0
    cdef int status
    dst_starts, src_starts, lengths = columns(np.uint64, dst_starts, src_starts, lengths)
    which = column(which, np.uint32)
    n = len(lengths)
    if <size_t>len(which) != n:
        raise ValueError(f"columns differ in length: {len(which)}, {n}")
    cdef const uint64_t[::1] to = dst_starts
    cdef const uint64_t[::1] at = src_starts
    cdef const uint64_t[::1] sizes = lengths
    cdef const uint32_t[::1] numbers = which
    cdef _Sources held = _Sources(sources)
    PyObject_GetBuffer(dst, &target, PyBUF_WRITABLE)
    try:
        with nogil:
            status = spans_copy(<uint8_t *>target.buf, target.len, &to[0], held.sources, held.held, &numbers[0],
                                &at[0], &sizes[0], n, &bad)
        if status == SPANS_NO_SOURCE:
            raise ValueError(f"piece {bad} names source {numbers[bad]} of {held.held}")
    finally:
        PyBuffer_Release(&target)
        held.release()
    if status:
        where = "source" if status == SPANS_OUTSIDE_SOURCE else "target"
        raise ValueError(f"piece {bad} reaches outside of its {where}")


def equal(a, a_starts, b, b_starts, lengths):
    """The index of the first piece whose bytes in `a` and in `b` differ; -1 if none does."""
    cdef Py_buffer left, right
    cdef size_t n, differing = 0, bad = 0
    cdef int status
    a_starts, b_starts, lengths = columns(np.uint64, a_starts, b_starts, lengths)
    n = len(lengths)
    cdef const uint64_t[::1] in_a = a_starts
    cdef const uint64_t[::1] in_b = b_starts
    cdef const uint64_t[::1] sizes = lengths
    PyObject_GetBuffer(a, &left, PyBUF_SIMPLE)
    try:
        PyObject_GetBuffer(b, &right, PyBUF_SIMPLE)
        try:
            with nogil:
                status = spans_equal(<const uint8_t *>left.buf, left.len, &in_a[0], <const uint8_t *>right.buf,
                                     right.len, &in_b[0], &sizes[0], n, &differing, &bad)
        finally:
            PyBuffer_Release(&right)
    finally:
        PyBuffer_Release(&left)
    if status:
        where = "first" if status == SPANS_OUTSIDE_SOURCE else "second"
        raise ValueError(f"piece {bad} reaches outside of the {where} buffer")
    return -1 if differing == n else differing
