"""One large blob over several connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import registry
import sample
from registry import Toy, serving

from casstore.digest import Digest
from casstore.errors import BadInput, CasstoreError, Interrupted, NotFound, RemoteFailure
from casstore.flow.source import fill
from casstore.transport import blob_lanes
from casstore.transport.blob_lanes import LaneDownload, download
from casstore.transport.http import Http, Network
from casstore.transport.registry import Registry

DATA = sample.noise("lanes", 1 << 20)
DIGEST = Digest.of(DATA)
QUICK = Network(backoff=0.01, read_timeout=2.0, connect_timeout=5.0, retries=2)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blob_lanes, "PART", 64 << 10)
    monkeypatch.setattr(blob_lanes, "LARGE", 256 << 10)


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as made:
        made.blob("a", DATA)
        yield made


@pytest.fixture
def there(toy: Toy) -> Iterator[Registry]:
    http = Http(QUICK)
    yield Registry(http, toy.host)
    http.close()


def read(source: object) -> bytes:
    view = memoryview(bytearray(len(DATA) + 1))
    return bytes(view[: fill(source, view)])  # type: ignore[arg-type]


def asked(toy: Toy) -> list[str]:
    return [one.headers.get("range", "") for one in toy.log if one.path.endswith(str(DIGEST))]


@pytest.mark.parametrize("start", [0, 1, 700_000])
def test_all_bytes_in_their_order(toy: Toy, there: Registry, start: int) -> None:
    with download(there, "a", DIGEST, len(DATA), start, lanes=3) as source:
        assert isinstance(source, LaneDownload)
        assert source.size == len(DATA) - start
        assert read(source) == DATA[start:]
    assert len(asked(toy)) == -(-(len(DATA) - start) // (64 << 10))


def test_what_is_small_comes_in_one(toy: Toy, there: Registry) -> None:
    with download(there, "a", DIGEST, len(DATA), len(DATA) - 1000, lanes=3) as source:
        assert read(source) == DATA[-1000:]
    assert asked(toy) == [f"bytes={len(DATA) - 1000}-"]


def test_no_more_is_fetched_ahead_than_there_is_room_for(toy: Toy, there: Registry) -> None:
    with LaneDownload(there, "a", DIGEST, len(DATA), lanes=2) as source:
        view = memoryview(bytearray(1000))
        assert source.readinto(view) == 1000
        time.sleep(0.3)
        assert len(asked(toy)) <= 5
        assert bytes(view) + read(source) == DATA


def test_ranges_that_are_ignored(toy: Toy, there: Registry) -> None:
    toy.fail("GET", str(DIGEST), registry.no_ranges, times=100)
    with LaneDownload(there, "a", DIGEST, len(DATA), lanes=3) as source:
        assert read(source) == DATA


def test_ranges_that_are_ignored_from_some_time_on(toy: Toy, there: Registry) -> None:
    toy.fail("GET", str(DIGEST), registry.no_ranges, times=100, skip=5)
    with LaneDownload(there, "a", DIGEST, len(DATA), lanes=3) as source:
        assert read(source) == DATA


@pytest.mark.parametrize("trouble", [registry.cut(10_000), registry.reset(10_000), registry.status(503)])
def test_a_part_that_breaks_is_taken_up(toy: Toy, there: Registry, trouble: object) -> None:
    toy.fail("GET", str(DIGEST), trouble, times=2, skip=4)  # type: ignore[arg-type]
    with LaneDownload(there, "a", DIGEST, len(DATA), lanes=3) as source:
        assert read(source) == DATA


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        (registry.error(404, "BLOB_UNKNOWN", "gone"), NotFound),
        (registry.status(500), RemoteFailure),
        (registry.status(206, b"x" * 10, Content_Range="bytes 5-14/100"), BadInput),
        (registry.status(206, b"x" * 10), BadInput),
        (registry.cut(0), RemoteFailure),
    ],
)
def test_what_does_not_pass_is_told(toy: Toy, there: Registry, trouble: object, kind: type[CasstoreError]) -> None:
    toy.fail("GET", str(DIGEST), trouble, times=100, skip=4)  # type: ignore[arg-type]
    with pytest.raises(kind), LaneDownload(there, "a", DIGEST, len(DATA), lanes=3) as source:
        read(source)


def test_who_does_not_read_on_waits_for_nobody(toy: Toy, there: Registry) -> None:
    toy.fail("GET", str(DIGEST), registry.stall(1000), times=100)
    source = LaneDownload(there, "a", DIGEST, len(DATA), lanes=3)
    while len(asked(toy)) < 3:
        time.sleep(0.01)
    source.close()
    assert not any(thread.name == "lane" for thread in threading.enumerate())


def test_checks_are_heard_while_waiting(toy: Toy, there: Registry) -> None:
    toy.fail("GET", str(DIGEST), registry.stall(1000), times=100)
    ended = threading.Event()

    def check() -> None:
        if ended.is_set():
            raise Interrupted("interrupted")

    with LaneDownload(there, "a", DIGEST, len(DATA), lanes=2, check=check) as source:
        threading.Timer(0.2, ended.set).start()
        with pytest.raises(Interrupted):
            read(source)
