"""deflate: a stream parsed; what encoders made held against their engines, and made again. MB/s of content.

The streams are those of the encoders themselves (tests/encoders.py); one that is not here is skipped.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import pytest

from casstore.kernels import deflate

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
from encoders import ENCODERS, Absent, Workshop

STRETCH = 4 << 20
"""Content that is predicted at once, as codec/gzip does."""
TOKENS = 9 << 20
HEADER = 10
"""Of gzip made from a pipe: without a name."""
CHOSEN = ("gzip -6", "gzip -9", "pigz -6", "Python gzip 1", "Python gzip 6", "Python gzip 9", "BusyBox gzip",
          "Go 1", "Go 6", "Go 9", "Go 1.27 1", "Go 1.27 6", "skopeo", "umoci")  # fmt: skip


@pytest.fixture(scope="module")
def part(content):
    """Libraries and sources, half and half."""
    middle = (24 << 20) - STRETCH // 2
    return content[middle : middle + 2 * STRETCH]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, part):
    folder = tmp_path_factory.mktemp("encoders")
    (folder / "part.tar").write_bytes(part)
    return Workshop(folder)


def parsed(stream, target):
    """A stretch, and how much content it has."""
    parser, stretch = deflate.Parser(), deflate.Stretch(TOKENS)
    parser.begin(stretch)
    room = bytearray(2 * target + (1 << 20))
    told, _, made = parser.parse(stretch, stream, True, room, 0, target)
    assert told in ("full", "end")
    return stretch, made


def test_deflate_parse(part, rate):
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    stream = packer.compress(part[:STRETCH]) + packer.flush()

    def parse():
        return parsed(stream, STRETCH)[1]

    assert rate(parse, amount=STRETCH) == STRETCH


@pytest.fixture(scope="module", params=[one for one in ENCODERS if one.name in CHOSEN], ids=lambda one: one.name)
def followed(request, workshop, part):
    """(engine's name, version and level; a stretch of what the encoder made; the content that goes with it)."""
    out = workshop.folder / "out.gz"
    try:
        request.param.make(workshop, workshop.folder / "part.tar", out)
    except Absent as error:
        pytest.skip(str(error))
    blob = out.read_bytes()
    assert not blob[3]
    content = part if zlib.decompress(blob, 31) == part else zlib.decompress(blob, 31)
    stretch, made = parsed(memoryview(blob)[HEADER:], STRETCH)
    name, version, level = request.param.engine
    for choice in ((name, number, level or 26) for number in ([version] if version else range(1, 9))):
        if choice[:2] in deflate.engines():
            return choice, stretch, content[: made + deflate.LOOKAHEAD], made
    pytest.skip(f"no engine {name} {version}")


def test_deflate_predict(followed, rate):
    choice, stretch, view, made = followed

    def predict():
        engine = deflate.Engine(*choice)
        engine.seek(view, 0, False, 0)
        engine.make(stretch, view, 0, False, 1 << 20)

    rate(predict, amount=made)


def test_deflate_again(followed, rate):
    choice, stretch, view, made = followed
    engine = deflate.Engine(*choice)
    engine.seek(view, 0, False, 0)
    exceptions = engine.make(stretch, view, 0, False, 1 << 20)
    out = bytearray((stretch.bits + 7) // 8)

    def again():
        engine = deflate.Engine(*choice)
        engine.seek(view, 0, False, 0)
        return engine.apply(view, 0, False, stretch.blocks, exceptions, out, 0, stretch.most_tokens)

    assert rate(again, amount=made) == stretch.bits
