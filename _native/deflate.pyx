# Deflate streams in stretches, and what engines make of them: a thin skin over deflate_*.c, trace.c and engine_*.c.
from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

cdef extern from "deflate.h" nogil:
    int DEFLATE_INPUT, DEFLATE_ROOM, DEFLATE_TAIL, DEFLATE_END, DEFLATE_BAD, DEFLATE_CUT, DEFLATE_MEMORY
    ctypedef struct deflate_parser:
        pass
    ctypedef struct deflate_io:
        const uint8_t *input
        size_t input_left
        int last
        uint8_t *content
        size_t content_room
        uint32_t *tokens
        size_t token_room
    ctypedef struct deflate_writer:
        uint8_t *out
        size_t room
        uint64_t bits
        unsigned count
        int lost
    deflate_parser *deflate_parser_new()
    void deflate_parser_free(deflate_parser *)
    int deflate_parse(deflate_parser *, deflate_io *)
    uint64_t deflate_parser_bits(const deflate_parser *)
    uint64_t deflate_parser_content(const deflate_parser *)
    const char *deflate_parser_error(const deflate_parser *)
    unsigned deflate_parser_padding(const deflate_parser *)
    unsigned deflate_parser_surplus(const deflate_parser *)

cdef extern from "engine.h" nogil:
    enum:
        ENGINE_STATE
    ctypedef struct engine_view:
        const uint8_t *bytes
        uint64_t begin, end
        int last
    ctypedef struct engine_kind:
        const char *name
        unsigned version
        uint32_t history, lookahead, max_tokens
        void *(*open)(int) noexcept nogil
        void (*close)(void *) noexcept nogil
        int (*seek)(void *, const engine_view *, uint64_t, const uint32_t *) noexcept nogil
        void (*save)(const void *, uint32_t *) noexcept nogil
        uint64_t (*position)(const void *) noexcept nogil
    size_t engine_count
    const engine_kind *engine_kinds[]

cdef extern from "engine_proof.h" nogil:
    int PROOF_HOLDS, PROOF_MEMORY
    int engine_prove(const engine_kind *, int)

cdef extern from "trace.h" nogil:
    ctypedef struct trace_block:
        uint32_t tokens

cdef extern from "stretch.h" nogil:
    ctypedef struct stretch:
        size_t count
        uint32_t *tokens
        size_t token_count
        trace_block *blocks
        uint64_t start, size, first_bit, bits
    int stretch_init(stretch *, size_t)
    void stretch_free(stretch *)
    void stretch_begin(stretch *, const deflate_parser *)
    int stretch_parse(stretch *, deflate_parser *, deflate_io *, uint64_t)

cdef extern from "trace.h" nogil:
    int TRACE_OK, TRACE_BAD, TRACE_ROOM, TRACE_LOST, TRACE_MEMORY, TRACE_VIEW
    ctypedef struct trace_buffer:
        uint8_t *bytes
        size_t size, room
    int trace_make(const engine_kind *, void *, const engine_view *, const trace_block *, size_t, const uint32_t *,
                   uint32_t *, trace_buffer *)
    int trace_apply(const engine_kind *, void *, const engine_view *, uint64_t, const uint8_t *, size_t, uint32_t *,
                    size_t, deflate_writer *)

from casstore.kernels._deflate_py import BadStream, BadTrace, Lost, TooMuch, ViewTooSmall

IMPLEMENTATION = "compiled"

_FAILURES = {TRACE_BAD: BadTrace, TRACE_ROOM: TooMuch, TRACE_LOST: Lost, TRACE_MEMORY: MemoryError,
             TRACE_VIEW: ViewTooSmall}


cdef class _Buffer:
    """A buffer held for as long as this object lives."""

    cdef Py_buffer view
    cdef bint held

    def __cinit__(self, source, bint writable=False):
        PyObject_GetBuffer(source, &self.view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
        self.held = True

    def __dealloc__(self):
        if self.held:
            PyBuffer_Release(&self.view)


_TOLD = {DEFLATE_INPUT: "input", DEFLATE_ROOM: "room", DEFLATE_TAIL: "full", DEFLATE_END: "end"}


cdef class Stretch:
    cdef stretch all

    def __cinit__(self, size_t tokens):
        if stretch_init(&self.all, tokens):
            raise MemoryError

    def __dealloc__(self):
        stretch_free(&self.all)

    @property
    def blocks(self):
        return self.all.count

    @property
    def start(self):
        return self.all.start

    @property
    def size(self):
        return self.all.size

    @property
    def most_tokens(self):
        cdef size_t i
        cdef uint32_t most = 0
        for i in range(self.all.count):
            most = max(most, self.all.blocks[i].tokens)
        return most

    @property
    def first_bit(self):
        return self.all.first_bit

    @property
    def bits(self):
        return self.all.bits


cdef class Parser:
    cdef deflate_parser *parser

    def __cinit__(self):
        self.parser = deflate_parser_new()
        if self.parser == NULL:
            raise MemoryError

    def __dealloc__(self):
        deflate_parser_free(self.parser)

    @property
    def bits(self):
        return deflate_parser_bits(self.parser)

    @property
    def content(self):
        return deflate_parser_content(self.parser)

    @property
    def padding(self):
        return deflate_parser_padding(self.parser)

    @property
    def surplus(self):
        return deflate_parser_surplus(self.parser)

    def begin(self, Stretch into not None):
        stretch_begin(&into.all, self.parser)

    def parse(self, Stretch into not None, data, bint last, content, size_t at, uint64_t target):
        cdef _Buffer source = _Buffer(data), made = _Buffer(content, True)
        cdef deflate_io io
        cdef int told
        cdef size_t room = <size_t>made.view.len
        cdef uint64_t before = deflate_parser_content(self.parser)
        if at > room or at < min(before, 32768):
            raise ValueError("the content before the position is not there")
        io.input = <const uint8_t *>source.view.buf
        io.input_left = <size_t>source.view.len
        io.last = last
        io.content = <uint8_t *>made.view.buf + at
        io.content_room = room - at
        with nogil:
            told = stretch_parse(&into.all, self.parser, &io, target)
        if told == DEFLATE_MEMORY:
            raise MemoryError
        if told == DEFLATE_BAD:
            raise BadStream(deflate_parser_error(self.parser).decode())
        if told == DEFLATE_CUT:
            raise BadStream("unexpected EOF")
        return _TOLD[told], source.view.len - io.input_left, deflate_parser_content(self.parser) - before


def engines():
    return {(engine_kinds[i].name.decode(), engine_kinds[i].version):
            (engine_kinds[i].history, engine_kinds[i].lookahead) for i in range(engine_count)}


_PROOFS = {}
"""Whether an engine (name, version, level) does here what its encoder does: known since it was first asked for."""


cdef int _prove(const engine_kind *kind, int level) except -1:
    # Once in a process; two threads may do it at the same time, which is as good.
    cdef int told
    cdef str name = kind.name.decode()
    cdef tuple known = (name, kind.version, level)
    if known not in _PROOFS:
        with nogil:
            told = engine_prove(kind, level)
        if told == PROOF_MEMORY:
            raise MemoryError
        _PROOFS[known] = told == PROOF_HOLDS
    if not _PROOFS[known]:
        raise LookupError(f"engine {name} {kind.version}, level {level}, does not prove itself on this machine")
    return 0


cdef class Engine:
    cdef const engine_kind *kind
    cdef void *engine
    cdef uint32_t *scratch
    cdef size_t scratch_room

    def __cinit__(self, str name, unsigned version, int level):
        cdef size_t i
        for i in range(engine_count):
            if engine_kinds[i].name.decode() == name and engine_kinds[i].version == version:
                self.kind = engine_kinds[i]
        if self.kind == NULL:
            raise LookupError(f"no engine {name} {version}")
        self.scratch_room = self.kind.max_tokens
        self.scratch = <uint32_t *>malloc(self.scratch_room * sizeof(uint32_t))
        self.engine = self.kind.open(level)
        if self.engine == NULL or self.scratch == NULL:
            raise LookupError(f"engine {name} has no level {level}")
        _prove(self.kind, level)

    def __dealloc__(self):
        if self.engine != NULL:
            self.kind.close(self.engine)
        free(self.scratch)

    @property
    def position(self):
        return self.kind.position(self.engine)

    def seek(self, content, uint64_t begin, bint last, uint64_t position, state=(0, 0, 0, 0)):
        cdef _Buffer buffer = _Buffer(content)
        cdef engine_view view
        cdef uint32_t kept[4]
        cdef int told, i
        if len(state) != ENGINE_STATE:
            raise ValueError("a state of four numbers is wanted")
        for i in range(ENGINE_STATE):
            kept[i] = state[i]
        _look(&view, buffer, begin, last)
        if not view.begin <= position <= view.end or position - view.begin < min(position, self.kind.history):
            raise ViewTooSmall("the content before the position is not there")
        with nogil:
            told = self.kind.seek(self.engine, &view, position, kept)
        if told < 0:
            raise Lost("no engine can begin there")

    def save(self):
        cdef uint32_t kept[4]
        self.kind.save(self.engine, kept)
        return tuple(kept[i] for i in range(ENGINE_STATE))

    def make(self, Stretch stretch not None, content, uint64_t begin, bint last, size_t limit):
        cdef _Buffer buffer = _Buffer(content)
        cdef engine_view view
        cdef trace_buffer out
        cdef int told
        _look(&view, buffer, begin, last)
        if stretch.all.start != self.kind.position(self.engine):
            raise ValueError("the engine stands elsewhere")
        if not view.begin <= stretch.all.start <= stretch.all.start + stretch.all.size <= view.end:
            raise ViewTooSmall("the content is not there")
        out.bytes = <uint8_t *>malloc(limit + 1)
        out.size, out.room = 0, limit
        if out.bytes == NULL:
            raise MemoryError
        try:
            with nogil:
                told = trace_make(self.kind, self.engine, &view, stretch.all.blocks, stretch.all.count,
                                  stretch.all.tokens, self.scratch, &out)
            if told != TRACE_OK:
                raise _FAILURES[told](f"after {self.position} bytes of content")
            return (<const char *>out.bytes)[:out.size]
        finally:
            free(out.bytes)

    def apply(self, content, uint64_t begin, bint last, uint64_t blocks, exceptions, out, unsigned phase,
              size_t tokens):
        cdef _Buffer buffer = _Buffer(content), given = _Buffer(exceptions), made = _Buffer(out, True)
        cdef engine_view view
        cdef deflate_writer writer
        cdef uint32_t *room
        cdef int told
        _look(&view, buffer, begin, last)
        if phase > 7:
            raise ValueError("a phase of 0 to 7 bits is wanted")
        if tokens > <size_t>buffer.view.len:
            raise BadTrace("more tokens than there is content")
        if tokens > self.scratch_room:
            room = <uint32_t *>realloc(self.scratch, tokens * sizeof(uint32_t))
            if room == NULL:
                raise MemoryError
            self.scratch, self.scratch_room = room, tokens
        writer.out = <uint8_t *>made.view.buf
        writer.room = <size_t>made.view.len
        writer.bits, writer.count, writer.lost = 0, phase, 0
        with nogil:
            told = trace_apply(self.kind, self.engine, &view, blocks, <const uint8_t *>given.view.buf,
                               <size_t>given.view.len, self.scratch, self.scratch_room, &writer)
        if told == TRACE_OK and writer.count and not writer.room:
            told = TRACE_ROOM
        if told != TRACE_OK:
            raise _FAILURES[told](f"after {self.position} bytes of content")
        whole = made.view.len - writer.room
        if writer.count:
            writer.out[0] = <uint8_t>writer.bits
        return whole * 8 + writer.count - phase


cdef int _look(engine_view *view, _Buffer buffer, uint64_t begin, bint last) except -1:
    view.bytes = <const uint8_t *>buffer.view.buf
    view.begin = begin
    view.end = begin + <uint64_t>buffer.view.len
    view.last = last
    return 0
