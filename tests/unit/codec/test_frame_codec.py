from __future__ import annotations

import threading
import time
import tracemalloc

import numpy as np
import pytest

from casstore.codec import frame
from casstore.errors import Damaged
from casstore.format.encoding import zstd
from casstore.model import MAX_FRAME

TEXT = b"".join(b"line %d of a text that repeats itself\n" % (n % 977) for n in range(50_000))[:1_000_000]
NOISE = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("name", ["none", "lz4", "zstd:1", "zstd:3", "zstd:9", "zstd:19"])
def test_returns(name: str) -> None:
    number, stored = frame.compress(name, TEXT)
    assert number == frame.NUMBERS[name.partition(":")[0]]
    assert frame.decompress(number, stored, len(TEXT)) == TEXT


@pytest.mark.parametrize("name", ["lz4", "zstd:3"])
def test_what_does_not_shrink_is_kept_as_it_is(name: str) -> None:
    number, stored = frame.compress(name, NOISE)
    assert number == frame.NONE
    assert stored is NOISE


@pytest.mark.parametrize(
    "name",
    [
        "",
        "zstd",
        "zstd:",
        "zstd:0",
        "zstd:20",
        "zstd:03",
        "zstd:²",
        "zstd:-1",
        "lz4:1",
        "none:",
        "gzip",
        "ZSTD:3",
    ],
)
def test_no_such_codec(name: str) -> None:
    with pytest.raises(ValueError):
        frame.compress(name, TEXT)


def test_any_buffer() -> None:
    for raw in (bytearray(TEXT), memoryview(TEXT)):
        for name in ("lz4", "zstd:3", "none"):
            number, stored = frame.compress(name, raw)
            assert frame.decompress(number, memoryview(stored), len(TEXT)) == TEXT


def test_a_prefix_is_referred_to() -> None:
    base = np.random.default_rng(1).integers(0, 256, MAX_FRAME, dtype=np.uint8).tobytes()
    raw = base[:1_000_000] + b"new" + base[3_000_000:]
    for level in (1, 3, 9, 19):
        number, stored = frame.compress(f"zstd:{level}", raw, base)
        assert number == frame.ZSTD
        assert len(stored) < 5000
        assert frame.decompress(number, stored, len(raw), base) == raw
        with pytest.raises(Damaged):
            frame.decompress(number, stored, len(raw))


def test_only_zstd_takes_a_prefix() -> None:
    for name in ("none", "lz4"):
        with pytest.raises(ValueError):
            frame.compress(name, TEXT, TEXT)
    with pytest.raises(Damaged):
        frame.decompress(frame.LZ4, frame.compress("lz4", TEXT)[1], len(TEXT), TEXT)


def test_lengths_are_bounded() -> None:
    for length in (0, MAX_FRAME + 1):
        with pytest.raises(ValueError):
            frame.compress("none", bytes(length))
        with pytest.raises(Damaged):
            frame.decompress(frame.NONE, bytes(length), length)
    number, stored = frame.compress("zstd:3", bytes(MAX_FRAME))
    assert frame.decompress(number, stored, MAX_FRAME) == bytes(MAX_FRAME)


@pytest.mark.parametrize("name", ["none", "lz4", "zstd:3"])
@pytest.mark.parametrize("claim", [1, len(TEXT) - 1, len(TEXT) + 1, MAX_FRAME])
def test_other_lengths_than_claimed(name: str, claim: int) -> None:
    number, stored = frame.compress(name, TEXT)
    with pytest.raises(Damaged):
        frame.decompress(number, stored, claim)


def test_not_exactly_one_zstd_frame() -> None:
    stored = bytes(frame.compress("zstd:3", TEXT)[1])
    for data in (stored + b"x", stored * 2, stored[:-1], b"", b"junk"):
        with pytest.raises(Damaged):
            frame.decompress(frame.ZSTD, data, len(TEXT))


def test_a_bomb_takes_no_memory() -> None:
    bomb = zstd.compress(bytes(256 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(Damaged):
            frame.decompress(frame.ZSTD, bomb, 1000)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_wide_window_is_refused() -> None:
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.content_size_flag: 0}
    compressor = zstd.ZstdCompressor(options=options)
    stored = compressor.compress(TEXT) + compressor.flush()
    with pytest.raises(Damaged, match="undecodable"):
        frame.decompress(frame.ZSTD, stored, len(TEXT))


def test_unknown_codec_number() -> None:
    with pytest.raises(Damaged, match="unknown codec"):
        frame.decompress(9, b"x", 1)


@pytest.mark.parametrize("name", ["zstd:9", "lz4"])
def test_other_threads_run_meanwhile(name: str) -> None:
    raw = (TEXT * 5)[:MAX_FRAME]
    ended = threading.Event()

    def work() -> None:
        deadline = time.monotonic() + 0.2
        while time.monotonic() < deadline:
            number, stored = frame.compress(name, raw)
            frame.decompress(number, stored, len(raw))
        ended.set()

    thread = threading.Thread(target=work)
    thread.start()
    ticks = 0
    while not ended.is_set():
        time.sleep(0.0002)
        ticks += 1
    thread.join()
    assert ticks > 50
