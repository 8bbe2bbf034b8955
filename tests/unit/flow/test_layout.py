"""Layout: which chunks make which bytes, against the plain definition."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from casstore.flow.layout import Layout, Spans
from casstore.model import ChunkList

many = settings(max_examples=200, deadline=None)
#: Each chunk of a track: (length, how often in a row).
tracks = st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 1, 1, 2, 5, 40])), max_size=6)


def chunks_of(track: list[tuple[int, int]], first: int) -> tuple[ChunkList, list[bytes], bytes]:
    """The list, the bytes of each chunk, and the track whole. Every byte of every chunk is another."""
    parts = [bytes((first + 10 * n + i) % 251 for i in range(length)) for n, (length, _) in enumerate(track)]
    made = ChunkList(
        np.zeros((len(track), 32), np.uint8),
        np.array([length for length, _ in track], np.uint32),
        np.array([times for _, times in track], np.uint32),
    )
    return made, parts, b"".join(part * times for part, (_, times) in zip(parts, track, strict=True))


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Layout, list[bytes], bytes]:
    literals, literal_parts, literal = chunks_of(draw(tracks), 0)
    payloads, payload_parts, payload = chunks_of(draw(tracks), 100)
    marks = sorted(draw(st.lists(st.integers(0, len(literal)), max_size=5)))
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), min_size=len(marks), max_size=len(marks))))
    rows, out, a, b = [], b"", 0, 0
    for mark, cut in zip([*marks, len(literal)], [*cuts, len(payload)], strict=True):
        rows.append((mark - a, cut - b))
        out += literal[a:mark] + payload[b:cut]
        a, b = mark, cut
    weave = np.array(rows, np.uint64).reshape(-1, 2)
    return Layout(weave, literals, payloads), literal_parts + payload_parts, out


@given(layouts(), st.data())
@many
def test_pieces_make_the_spans_and_nothing_twice(made: tuple[Layout, list[bytes], bytes], data: st.DataObject) -> None:
    layout, parts, whole = made
    assert layout.size == len(whole)
    # Any spans, in any order, side by side in the buffer.
    wanted = data.draw(st.lists(st.tuples(st.integers(0, len(whole)), st.integers(1, len(whole) + 1)), max_size=5))
    spans = [(start, min(start + length, len(whole))) for start, length in wanted if start < len(whole)]
    if not spans:
        return
    starts, ends = (np.array(column, np.uint64) for column in zip(*spans, strict=True))
    lengths = ends - starts
    pieces = layout.pieces(Spans(starts, ends, np.cumsum(lengths) - lengths))
    rows = sorted(zip(*(column.tolist() for column in pieces), strict=True))
    assert all(length > 0 for *_, length in rows)
    out = b""
    for to, chunk, skip, length in rows:
        assert to == len(out)
        assert skip + length <= len(parts[chunk])
        out += parts[chunk][skip : skip + length]
    assert out == b"".join(whole[start:end] for start, end in spans)


def test_of_nothing() -> None:
    none = ChunkList(np.empty((0, 32), np.uint8), np.empty(0, np.uint32), np.empty(0, np.uint32))
    for weave in (np.empty((0, 2), np.uint64), np.zeros((1, 2), np.uint64)):
        assert Layout(weave, none, none).size == 0


def test_positions_beyond_what_floats_can_tell_apart() -> None:
    """Repeats are cheap: a recipe of a few bytes may describe more than 2^53."""
    length, times = np.array([(1 << 20) + 1], np.uint32), np.array([(1 << 32) - 1], np.uint32)
    chunks = ChunkList(np.zeros((1, 32), np.uint8), length, times)
    size = chunks.size
    layout = Layout(np.array([(size, size)], np.uint64), chunks, chunks)
    for start in (size - 3, size, 2 * size - 3):
        pieces = layout.pieces(Spans.one(start, start + 3))
        assert pieces.to.tolist() == [0] and pieces.length.tolist() == [3]
        assert pieces.skip.tolist() == [start % size % int(length[0])]
        assert pieces.chunk.tolist() == [int(start >= size)]
