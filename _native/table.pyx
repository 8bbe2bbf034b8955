"""The compiled twin of table: a thin skin over table.c."""

import os

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from casstore.kernels._arrays import column, digest_rows, within

cdef extern from "table.h" nogil:
    int TABLE_OK, TABLE_BAD_FANOUT, TABLE_UNSORTED, TABLE_NO_MEMORY, TABLE_RESERVED
    int TABLE_ENTRY, TABLE_MAX_BITS
    ctypedef struct table:
        const uint8_t *entries
        const uint8_t *fanout
        uint64_t count
        unsigned bits
    int table_find(const table *, const uint8_t *, size_t, uint8_t *, uint32_t *, uint32_t *, uint32_t *)
    int table_find_range(const table *, const uint8_t *, size_t, uint32_t *, uint32_t *, uint32_t *)
    int table_build_fanout(const uint8_t *, size_t, size_t, unsigned, uint32_t *, size_t *)
    int table_order(const uint8_t *, size_t, size_t, uint32_t *)
    ctypedef struct chunkmap:
        uint64_t used
    void chunkmap_init(chunkmap *, uint64_t, uint64_t)
    void chunkmap_free(chunkmap *)
    int chunkmap_claim(chunkmap *, const uint8_t *, size_t, uint8_t *)
    int chunkmap_set(chunkmap *, const uint8_t *, const uint64_t *, size_t)
    void chunkmap_get(const chunkmap *, const uint8_t *, size_t, uint64_t *)
    void chunkmap_dump(const chunkmap *, uint8_t *, uint64_t *)

IMPLEMENTATION = "compiled"


cdef class _Table:
    """Both buffers of a table, held and measured."""

    cdef Py_buffer entries, fanout
    cdef bint has_entries, has_fanout
    cdef table view

    def __cinit__(self, entries_buf, count, fanout_buf, bits):
        PyObject_GetBuffer(entries_buf, &self.entries, PyBUF_SIMPLE)
        self.has_entries = True
        PyObject_GetBuffer(fanout_buf, &self.fanout, PyBUF_SIMPLE)
        self.has_fanout = True
        self.view.entries = <const uint8_t *>self.entries.buf
        self.view.fanout = <const uint8_t *>self.fanout.buf
        self.view.bits = within("bits", bits, TABLE_MAX_BITS)
        self.view.count = within("count", count, min(self.entries.len // TABLE_ENTRY, 2**32 - 1))
        if self.fanout.len < 4 * ((<Py_ssize_t>1 << self.view.bits) + 1):
            raise ValueError(f"a fanout of {bits} bits is longer than {self.fanout.len} bytes")

    cdef void release(self) noexcept:
        if self.has_entries:
            PyBuffer_Release(&self.entries)
        if self.has_fanout:
            PyBuffer_Release(&self.fanout)
        self.has_entries = self.has_fanout = False

    def __dealloc__(self):
        self.release()


def find(entries_buf, count, fanout_buf, bits, digests):
    """For each digest: whether it is there, and the pack and address of its first entry (0 and 0 if not)."""
    cdef _Table held = _Table(entries_buf, count, fanout_buf, bits)
    digests = digest_rows(digests)
    cdef size_t n = len(digests)
    cdef uint32_t bad = 0
    cdef int status
    found, packs, addresses = np.empty(n, np.bool_), np.empty(n, np.uint32), np.empty(n, np.uint32)
    cdef const uint8_t[:, ::1] wanted = digests
    cdef uint8_t[::1] mask = found.view(np.uint8)
    cdef uint32_t[::1] pack = packs
    cdef uint32_t[::1] address = addresses
    with nogil:
        status = table_find(&held.view, &wanted[0, 0], n, &mask[0], &pack[0], &address[0], &bad)
    held.release()
    if status:
        raise ValueError(f"bucket {bad} of the fanout is not a range of entries")
    return found, packs, addresses


def find_range(entries_buf, count, fanout_buf, bits, digests):
    """For each digest: the number of its first entry (where it would be, if absent), and how many entries it has."""
    cdef _Table held = _Table(entries_buf, count, fanout_buf, bits)
    digests = digest_rows(digests)
    cdef size_t n = len(digests)
    cdef uint32_t bad = 0
    cdef int status
    firsts, counts = np.empty(n, np.uint32), np.empty(n, np.uint32)
    cdef const uint8_t[:, ::1] wanted = digests
    cdef uint32_t[::1] first = firsts
    cdef uint32_t[::1] many = counts
    with nogil:
        status = table_find_range(&held.view, &wanted[0, 0], n, &first[0], &many[0], &bad)
    held.release()
    if status:
        raise ValueError(f"bucket {bad} of the fanout is not a range of entries")
    return firsts, counts


cdef object strided(object digests):
    """Digests as (n, 32) bytes, each row contiguous; a column of wider rows stays where it is."""
    array = np.asarray(digests)
    if array.ndim == 2 and array.shape[1] == 32 and array.dtype == np.uint8:
        if array.strides[1] == 1 and array.strides[0] >= 32:
            return array
    return digest_rows(array)


def build_fanout(digests, bits):
    """The fanout (2^bits + 1,) of ascending digests (n, 32), which may be a column of wider rows."""
    cdef unsigned width = within("bits", bits, TABLE_MAX_BITS)
    digests = strided(digests)
    cdef size_t n = within("number of digests", len(digests), 2**32 - 1)
    cdef size_t stride = digests.strides[0] if n > 1 else 32, bad = 0  # of one row numpy says anything
    cdef int status
    fanout = np.empty((<size_t>1 << width) + 1, np.uint32)
    cdef const uint8_t[:, :] rows = digests
    cdef uint32_t[::1] out = fanout
    with nogil:
        status = table_build_fanout(&rows[0, 0], stride, n, width, &out[0], &bad)
    if status:
        raise ValueError(f"digest {bad} is smaller than the one before it")
    return fanout


def order(digests):
    """What sorts the digests (n, 32): their numbers, ascending by digest, equal ones in their order."""
    digests = strided(digests)
    cdef size_t n = within("number of digests", len(digests), 2**32 - 1)
    cdef size_t stride = digests.strides[0] if n > 1 else 32
    cdef int status
    numbers = np.empty(n, np.uint32)
    cdef const uint8_t[:, :] rows = digests
    cdef uint32_t[::1] out = numbers
    with nogil:
        status = table_order(&rows[0, 0], stride, n, &out[0])
    if status:
        raise MemoryError
    return numbers


cdef class ChunkMap:
    """A map from digests to uint64 values that knows which digests were never seen before."""

    # Every call keeps the GIL: it is short, and the GIL is the lock.
    cdef chunkmap map

    def __cinit__(self):
        cdef bytes seed = os.urandom(16)
        chunkmap_init(&self.map, int.from_bytes(seed[:8], "little"), int.from_bytes(seed[8:], "little"))

    def __dealloc__(self):
        chunkmap_free(&self.map)

    def __len__(self):
        return self.map.used

    def claim(self, digests):
        """True for each digest that was not in the map; it then is, as PENDING."""
        digests = digest_rows(digests)
        first = np.empty(len(digests), np.bool_)
        cdef const uint8_t[:, ::1] rows = digests
        cdef uint8_t[::1] mask = first.view(np.uint8)
        if chunkmap_claim(&self.map, &rows[0, 0], len(digests), &mask[0]):
            raise MemoryError
        return first

    def set(self, digests, values):
        """Give each digest, claimed or not, its value."""
        digests = digest_rows(digests)
        values = column(values, np.uint64)
        if len(digests) != len(values):
            raise ValueError(f"{len(digests)} digests, {len(values)} values")
        cdef const uint8_t[:, ::1] rows = digests
        cdef const uint64_t[::1] numbers = values
        cdef int status = chunkmap_set(&self.map, &rows[0, 0], &numbers[0], len(digests))
        if status == TABLE_RESERVED:
            raise ValueError("MISSING is not a value")
        if status:
            raise MemoryError

    def get(self, digests):
        """The value of each digest: MISSING where it is not in the map."""
        digests = digest_rows(digests)
        values = np.empty(len(digests), np.uint64)
        cdef const uint8_t[:, ::1] rows = digests
        cdef uint64_t[::1] numbers = values
        chunkmap_get(&self.map, &rows[0, 0], len(digests), &numbers[0])
        return values

    def export(self):
        """All digests (n, 32), ascending, and their values."""
        digests, values = np.empty((self.map.used, 32), np.uint8), np.empty(self.map.used, np.uint64)
        cdef uint8_t[:, ::1] rows = digests
        cdef uint64_t[::1] numbers = values
        chunkmap_dump(&self.map, &rows[0, 0], &numbers[0])
        by_digest = order(digests)
        return digests[by_digest], values[by_digest]
