"""tarscan: segments of a tar stream, in feeds as ingest makes them."""

from __future__ import annotations

from casstore.kernels import tarscan

FEED = 4 << 20


def scan(content: bytes, entries: bool) -> int:
    view = memoryview(content)
    scanner = tarscan.Scanner(entries)
    for at in range(0, len(view), FEED):
        scanner.feed(view[at : at + FEED])
    scanner.finish()
    return scanner.content_size


def test_tarscan_segments(content, rate):
    assert rate(scan, content, False, amount=len(content), bar=4000.0) > 0


def test_tarscan_entries(content, rate):
    assert rate(scan, content, True, amount=len(content)) > 0
