"""--retries and --timeout, as far as a registry notices."""

from __future__ import annotations

import registry
import sample
from registry import serving
from running import Cas

ONE = sample.image("x", layers=[sample.files({"a": b"1"})])


def test_retries(cas: Cas) -> None:
    with serving() as toy:
        toy.add("a", "1", ONE)
        toy.fail("HEAD", "/manifests/1", registry.status(503), times=2)
        ran = cas("pull", "--retries", "0", "-q", f"{toy.host}/a:1", ok=False)
        assert "503" in ran.err
        assert toy.count("HEAD", "/manifests/1") == 1
        assert cas("pull", "--retries", "1", "-q", f"{toy.host}/a:1").out == f"{toy.host}/a:1\n"


def test_timeout(cas: Cas) -> None:
    with serving() as toy:
        toy.add("a", "1", ONE)
        layer = sample.digest(sample.gz(ONE.layers[0]))
        toy.fail("GET", layer, registry.stall(10), times=100)
        assert "timed out" in cas("pull", "--retries", "0", "--timeout", "1", f"{toy.host}/a:1", ok=False).err


def test_what_is_no_number(cas: Cas) -> None:
    for words in (["--retries", "-1"], ["--retries", "x"], ["--timeout", "0"], ["--timeout", "nan"]):
        assert cas("pull", *words, "localhost/a", ok=False).err.startswith("Error: Invalid value")
