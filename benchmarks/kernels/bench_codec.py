"""codecs of frames: 1 MiB frames of real files, compressed and decompressed; MB/s of uncompressed bytes.

Results are dropped one by one, as in use: where they are all kept, fresh pages cost as much as decoding does.
"""

from __future__ import annotations

import pytest

from casstore.codec import frame

FRAME = 1 << 20
CODECS = ["lz4", "zstd:1", "zstd:2", "zstd:3"]


@pytest.fixture(scope="module")
def frames(content):
    """Every fourth MiB of the content: libraries and sources alike."""
    return [content[at : at + FRAME] for at in range(0, len(content) - FRAME, 4 * FRAME)]


@pytest.mark.parametrize("codec", CODECS)
def test_codec_compress(codec, frames, rate, benchmark):
    def there():
        return sum(len(frame.compress(codec, one)[1]) for one in frames)

    stored = rate(there, amount=len(frames) * FRAME)
    benchmark.extra_info["ratio"] = stored / (len(frames) * FRAME)


@pytest.mark.parametrize("codec", CODECS)
def test_codec_decompress(codec, frames, rate):
    stored = [frame.compress(codec, one) for one in frames]

    def back():
        return sum(len(frame.decompress(number, one, FRAME)) for number, one in stored)

    assert rate(back, amount=len(frames) * FRAME) == len(frames) * FRAME
