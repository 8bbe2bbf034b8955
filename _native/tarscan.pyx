# The compiled twin of casstore/kernels/_tarscan_py.py: same names, same results.
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc

import numpy as np

from casstore.kernels._tarscan_py import Entry, Segments, parse_pax

IMPLEMENTATION = "compiled"
_TYPES = [bytes((number,)) for number in range(256)]

cdef extern from "tarscan.h" nogil:
    int TARSCAN_OK
    int TARSCAN_NO_MEMORY
    ctypedef struct tarscan:
        pass
    ctypedef struct tarscan_piece:
        uint64_t length
        uint64_t total
        uint8_t payload
        uint8_t last
    ctypedef struct tarscan_entry:
        uint64_t header, data, stored, size
        int64_t mode, uid, gid, mtime_ns
        size_t name, name_length, link, link_length, pax, pax_length
        uint8_t type
        uint8_t has_pax
    ctypedef struct tarscan_status:
        uint64_t position, payload_left, content_size, files
        int ended
    tarscan *tarscan_new(int entries)
    void tarscan_free(tarscan *scanner)
    int tarscan_feed(tarscan *scanner, const uint8_t *data, size_t n, size_t *used, tarscan_piece *out, size_t room,
                     size_t *count)
    int tarscan_skip(tarscan *scanner, uint64_t n)
    void tarscan_get_status(const tarscan *scanner, tarscan_status *status)
    const tarscan_entry *tarscan_entries(const tarscan *scanner, size_t *count, const uint8_t **texts)
    void tarscan_entries_clear(tarscan *scanner)


cdef class Scanner:
    cdef tarscan *scanner
    cdef tarscan_piece *pieces  # kept between calls
    cdef size_t room
    cdef bint finished

    def __cinit__(self, entries=False):
        self.scanner = tarscan_new(bool(entries))
        if self.scanner == NULL:
            raise MemoryError

    def __dealloc__(self):
        tarscan_free(self.scanner)
        free(self.pieces)

    cdef int _scan(self, const uint8_t *data, size_t n, size_t *count) noexcept nogil:
        cdef size_t used = 0, room
        cdef tarscan_piece *grown
        cdef int status
        while used < n:
            if count[0] + 1 > self.room:
                room = self.room * 2 if self.room else 256
                grown = <tarscan_piece *>realloc(self.pieces, room * sizeof(tarscan_piece))
                if grown == NULL:
                    return -1
                self.pieces = grown
                self.room = room
            status = tarscan_feed(self.scanner, data, n, &used, self.pieces, self.room, count)
            if status != TARSCAN_OK:
                return status
        return 0

    def feed(self, buf):
        cdef Py_buffer view
        cdef size_t count = 0, i
        cdef int status
        if self.finished:
            raise ValueError("the scanner is finished")
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                status = self._scan(<const uint8_t *>view.buf, <size_t>view.len, &count)
        finally:
            PyBuffer_Release(&view)
        if status != TARSCAN_OK:
            self.finished = True
            raise MemoryError
        payload = np.empty(count, np.uint8)
        lengths = np.empty(count, np.uint64)
        totals = np.empty(count, np.uint64)
        last = np.empty(count, np.uint8)
        cdef uint8_t[::1] payload_ = payload, last_ = last
        cdef uint64_t[::1] lengths_ = lengths, totals_ = totals
        for i in range(count):
            payload_[i] = self.pieces[i].payload
            lengths_[i] = self.pieces[i].length
            totals_[i] = self.pieces[i].total
            last_[i] = self.pieces[i].last
        return Segments(payload, lengths, totals, last)

    def skip(self, n):
        if n < 0 or n > self.payload_left:
            raise ValueError("skip goes beyond the payload")
        if self.finished:
            raise ValueError("the scanner is finished")
        tarscan_skip(self.scanner, n)

    def follow(self, buf, lengths):
        cdef Py_buffer view
        cdef uint64_t[:, ::1] rows = np.ascontiguousarray(lengths, np.uint64)
        cdef size_t at = 0, count = 0
        cdef Py_ssize_t i
        cdef int status = TARSCAN_OK
        if self.finished:
            raise ValueError("the scanner is finished")
        if rows.shape[1] != 2:
            raise ValueError("rows of two lengths are wanted")
        PyObject_GetBuffer(buf, &view, PyBUF_SIMPLE)
        try:
            with nogil:
                for i in range(rows.shape[0]):
                    if rows[i, 0] > <size_t>view.len - at:
                        break
                    count = 0
                    status = self._scan(<const uint8_t *>view.buf + at, <size_t>rows[i, 0], &count)
                    at += <size_t>rows[i, 0]
                    if status == TARSCAN_OK:
                        status = tarscan_skip(self.scanner, rows[i, 1])
                    if status != TARSCAN_OK:
                        break
                else:
                    i = rows.shape[0]
        finally:
            PyBuffer_Release(&view)
        if status == TARSCAN_NO_MEMORY:
            self.finished = True
            raise MemoryError
        if status != TARSCAN_OK:
            raise ValueError("skip goes beyond the payload")
        if i < rows.shape[0]:
            raise ValueError("the lengths reach beyond the buffer")
        if at != <size_t>view.len:
            raise ValueError("the lengths do not cover the buffer")

    def finish(self):
        self.finished = True

    cdef tarscan_status _status(self):
        cdef tarscan_status status
        tarscan_get_status(self.scanner, &status)
        return status

    @property
    def position(self):
        return self._status().position

    @property
    def payload_left(self):
        return self._status().payload_left

    @property
    def content_size(self):
        return self._status().content_size

    @property
    def files(self):
        return self._status().files

    @property
    def ended(self):
        return bool(self._status().ended)

    def pop_entries(self):
        cdef size_t count, i
        cdef const uint8_t *texts
        cdef const tarscan_entry *e = tarscan_entries(self.scanner, &count, &texts)
        make = Entry._make  # half the time of naming each field
        found = []
        for i in range(count):
            found.append(make((
                (<const char *>texts)[e[i].name:e[i].name + e[i].name_length],
                _TYPES[e[i].type],
                e[i].mode,
                e[i].uid,
                e[i].gid,
                e[i].mtime_ns,
                e[i].size,
                (<const char *>texts)[e[i].link:e[i].link + e[i].link_length],
                e[i].header,
                e[i].data,
                e[i].stored,
                parse_pax((<const char *>texts)[e[i].pax:e[i].pax + e[i].pax_length]) if e[i].has_pax else None,
            )))
        tarscan_entries_clear(self.scanner)
        return found
