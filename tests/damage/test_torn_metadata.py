"""A metadata pack that has lost its table and its last frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import sample

from casstore import api
from casstore.digest import Digest
from casstore.errors import CasstoreError
from casstore.format import pack as pack_format
from casstore.store import query
from casstore.store.objects import ObjectReader

LAYERS = [sample.files({f"{n}": sample.noise(n, 60_000)}) for n in range(9)]
IMAGES = [
    sample.image(n, [f"i:{n}"], [layer], config={"Labels": {"m": sample.noise(("m", n), 25_000).hex()}})
    for n, layer in enumerate(LAYERS)
]


def torn(root: Path) -> int:
    """Cut each metadata pack behind the first of its frames; returns how many frames went."""
    with api.open(root) as store, store.volume.catalog.read() as tx:
        paths = [root / "objects" / row.key for row in query.objects(tx, "metadata") if row.state == "live"]
    gone = 0
    for path in paths:
        with ObjectReader(path, path.name) as reader:
            _, frames = pack_format.scan_frames(reader)
        if len(frames) > 1:
            end = int(frames[0]["offset"]) + pack_format.FRAME_HEADER_SIZE + int(frames[0]["stored"])
            path.write_bytes(path.read_bytes()[:end])
            gone += len(frames) - 1
    return gone


def read(root: Path, right: dict[Digest, bytes]) -> set[Digest]:
    """The blobs that cannot be read."""
    lost = set()
    with api.open(root) as store:
        for digest, data in right.items():
            try:
                assert b"".join(store.blobs.cat(digest)) == data
            except CasstoreError as error:
                assert "\n" not in str(error)
                lost.add(digest)
    return lost


@pytest.mark.parametrize("catalog", [True, False])
def test_what_the_first_frames_hold_comes_back_and_a_load_heals_the_rest(tmp_path: Path, catalog: bool) -> None:
    root = tmp_path / "store"
    (tmp_path / "all.tar").write_bytes(sample.docker_archive(*IMAGES))
    with api.open(root) as store:
        store.load(tmp_path / "all.tar")
        store.gc()  # which merges the metadata packs, one an image, into one of several frames
        right = {row.digest: b"".join(store.blobs.cat(row.digest)) for row in store.blobs.ls()}
    assert torn(root)
    if not catalog:
        (root / "catalog.sqlite").unlink()
    with api.open(root, remake=True) as store:
        report = store.check(read_data=True, repair=True)
        assert not report.ok
        told = {name for one in report.findings for name in one.images}
    lost = read(root, right)
    assert lost
    if catalog:
        assert len(lost) < len(right)
        assert told  # whom it hurts
    with api.open(root) as store:
        store.load(tmp_path / "all.tar")
    assert not read(root, right)
    with api.open(root, remake=True) as store:
        store.check(read_data=True, repair=True)
        store.gc(grace=0)
        assert store.check(read_data=True).ok
