"""The compiled twin of hashing: a thin skin over sha256.c."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from casstore.kernels._arrays import columns, within

cdef extern from "sha256.h" nogil:
    ctypedef struct sha256_engine:
        const char *name
    ctypedef struct sha256_stream:
        uint64_t length
    const sha256_engine *sha256_best()
    void sha256_start(sha256_stream *)
    void sha256_update(const sha256_engine *, sha256_stream *, const uint8_t *, size_t)
    void sha256_digest(const sha256_engine *, const sha256_stream *, uint8_t *)
    int sha256_names(const sha256_engine *, const uint8_t *, uint64_t, const uint64_t *, const uint64_t *, size_t,
                     uint8_t *, size_t *)
    int sha256_stream_and_names(const sha256_engine *, sha256_stream *, const uint8_t *, size_t, const uint8_t *,
                                uint64_t, const uint64_t *, const uint64_t *, size_t, uint8_t *, size_t *)

cdef const sha256_engine *engine = sha256_best()

IMPLEMENTATION = "compiled"
ENGINE = engine.name.decode()

# Below this, giving up the GIL costs more than the hashing.
cdef enum:
    SMALL = 2048


cdef class Sha256:
    """The SHA-256 of a stream. `length`: bytes so far."""

    cdef sha256_stream state

    def __cinit__(self):
        sha256_start(&self.state)

    @property
    def length(self):
        return self.state.length

    def update(self, buf):
        """Take the bytes that follow."""
        cdef Py_buffer view
        cdef sha256_stream state
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            if view.len < SMALL:
                sha256_update(engine, &self.state, <const uint8_t *>view.buf, view.len)
            else:
                state = self.state  # others may look at this object while the GIL is away
                with nogil:
                    sha256_update(engine, &state, <const uint8_t *>view.buf, view.len)
                self.state = state
        finally:
            PyBuffer_Release(&view)

    def digest(self):
        """Of the bytes so far (32 bytes); the stream may go on."""
        result = PyBytes_FromStringAndSize(NULL, 32)
        sha256_digest(engine, &self.state, <uint8_t *>PyBytes_AS_STRING(result))
        return result

    def copy(self):
        """An independent stream with the same bytes behind it."""
        cdef Sha256 twin = Sha256()
        twin.state = self.state
        return twin


def names(buf, starts, lengths):
    """The SHA-256 of every span, (n, 32)."""
    cdef Py_buffer view
    cdef size_t n, bad = 0
    cdef int status
    starts, lengths = columns(np.uint64, starts, lengths)
    n = len(starts)
    digests = np.empty((n, 32), np.uint8)
    cdef const uint64_t[::1] from_ = starts
    cdef const uint64_t[::1] sizes = lengths
    cdef uint8_t[:, ::1] out = digests
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        with nogil:
            status = sha256_names(engine, <const uint8_t *>view.buf, view.len, &from_[0], &sizes[0], n, &out[0, 0],
                                  &bad)
    finally:
        PyBuffer_Release(&view)
    if status:
        raise ValueError(f"span {bad} reaches outside of its buffer")
    return digests


def stream_and_names(Sha256 stream not None, buf, begin, end, starts, lengths):
    """`stream.update(buf[begin:end])` and `names(buf, starts, lengths)` in one pass."""
    cdef Py_buffer view
    cdef sha256_stream state = stream.state
    cdef size_t n, first, size, bad = 0
    cdef int status
    starts, lengths = columns(np.uint64, starts, lengths)
    n = len(starts)
    digests = np.empty((n, 32), np.uint8)
    cdef const uint64_t[::1] from_ = starts
    cdef const uint64_t[::1] sizes = lengths
    cdef uint8_t[:, ::1] out = digests
    PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
    try:
        first = within("begin", begin, within("end", end, view.len))
        size = end - first
        with nogil:
            status = sha256_stream_and_names(engine, &state, <const uint8_t *>view.buf + first, size,
                                             <const uint8_t *>view.buf, view.len, &from_[0], &sizes[0], n, &out[0, 0],
                                             &bad)
    finally:
        PyBuffer_Release(&view)
    if status:
        raise ValueError(f"span {bad} reaches outside of its buffer")
    stream.state = state
    return digests
