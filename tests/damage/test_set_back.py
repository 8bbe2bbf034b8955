"""A catalog from a backup that was taken while gc ran: what it takes for garbage may be in use again since."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sample

from casstore import api
from casstore.errors import Damaged
from casstore.store import protocol, references
from casstore.store.catalog import Catalog

PARTS = ("", "-wal")
SHARED = sample.files({"shared": sample.noise("shared", 300_000)})
FIRST = sample.image("a", ["a:1"], [SHARED])
KEPT = sample.image("k", ["k:1"], [SHARED], config={"Labels": {"other": "1"}})
LATER = {
    "same": FIRST,
    "layer": sample.image("b", ["b:1"], [SHARED, sample.files({"b": sample.noise("b", 50_000)})]),
    "chunks": sample.image(
        "c", ["c:1"], [sample.files({"c": sample.noise("c", 50_000), "d": sample.noise("shared", 300_000)})]
    ),
    "nothing": sample.image("d", ["d:1"]),
}


class During:
    """gc in the middle of a load, right after its lease was opened, and a backup of the catalog just then: what gc has
    retired is seen by the load, which may put it to use again."""

    def __init__(self, root: Path, saved: Path, real: Callable[..., int]) -> None:
        self.root, self.saved, self.real = root, saved, real
        self.done = False

    def __call__(self, *given: Any, **more: Any) -> int:
        lease = self.real(*given, **more)
        if not self.done:
            self.done = True
            with api.open(self.root) as store:
                store.gc(grace=0)
                with store.volume.catalog.read() as tx:
                    assert tx.value("SELECT count(*) FROM blob WHERE state = 'retired'")
                    for part in PARTS:
                        shutil.copy(self.root / f"catalog.sqlite{part}", f"{self.saved}{part}")
        return lease


@pytest.mark.parametrize("pack", ["now", "never", "beside"])
@pytest.mark.parametrize("later", LATER)
@pytest.mark.parametrize("whole", [True, False])
def test_what_was_retired_then_and_is_in_use_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: str, pack: str, whole: bool
) -> None:
    root = tmp_path / "store"
    beside = pack == "beside"  # the packs stay in use; of what lies in them, something is retired
    pack = "now" if beside else pack
    for name, image in (("first", FIRST), ("kept", KEPT), ("later", LATER[later])):
        (tmp_path / name).write_bytes(sample.docker_archive(image))
    with api.open(root) as store:
        store.load(tmp_path / "first", pack=pack)
        if beside:
            store.load(tmp_path / "kept")
        list(store.remove(["a:1"]))
    with api.open(root) as store, monkeypatch.context() as patch:
        patch.setattr(protocol, "lease_open", During(root, tmp_path / "saved", protocol.lease_open))
        store.load(tmp_path / "later", pack=pack)
        patch.undo()
        tags = {f"{row.repository}:{row.tag}" for row in store.images()}
        content = {row.digest: b"".join(store.blobs.cat(row.digest)) for row in store.blobs.ls()}
    for part in (*PARTS, "-shm"):
        (root / f"catalog.sqlite{part}").unlink(missing_ok=True)
    for part in PARTS:
        shutil.copy(f"{tmp_path / 'saved'}{part}", root / f"catalog.sqlite{part}")
    if not whole:
        (root / references.FILE).rename(root / references.LATEST)
    with api.open(root) as store, pytest.raises(Damaged):
        store.gc(grace=0)
    with api.open(root, remake=True) as store:
        assert store.check(repair=True).ok
    with api.open(root) as store:
        with store.volume.catalog.read() as tx:
            leases = [row[0] for row in tx.rows("SELECT id FROM lease")]
        for lease in leases:  # they end by themselves; not by then
            protocol.lease_close(store.volume.catalog, lease)
        store.gc(grace=0)
        assert store.check(read_data=True).ok
        assert not whole or {f"{row.repository}:{row.tag}" for row in store.images()} == tags
        for digest, data in content.items():
            assert b"".join(store.blobs.cat(digest)) == data
        left = {row.digest for row in store.blobs.ls()}
        assert left == set(content) if whole else left >= set(content)


@pytest.mark.parametrize("folder", [True, False])
def test_what_was_pending_then_and_is_in_use_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    """The writer came to its commit; it may have been killed after that, and then its staging folder is there."""
    root = tmp_path / "store"
    (tmp_path / "image").write_bytes(sample.docker_archive(FIRST))
    real = protocol.commit
    leases: list[int] = []

    def commit(catalog: Catalog, lease: int, *given: Any, **more: Any) -> Any:
        if not leases:
            leases.append(lease)
            with catalog.read() as tx:
                assert tx.value("SELECT count(*) FROM object WHERE state = 'pending'")
                for part in PARTS:
                    shutil.copy(root / f"catalog.sqlite{part}", f"{tmp_path / 'saved'}{part}")
        return real(catalog, lease, *given, **more)

    with api.open(root) as store:
        monkeypatch.setattr(protocol, "commit", commit)
        store.load(tmp_path / "image")
        monkeypatch.undo()
        content = {row.digest: b"".join(store.blobs.cat(row.digest)) for row in store.blobs.ls()}
    for part in (*PARTS, "-shm"):
        (root / f"catalog.sqlite{part}").unlink(missing_ok=True)
    for part in PARTS:
        shutil.copy(f"{tmp_path / 'saved'}{part}", root / f"catalog.sqlite{part}")
    if folder:
        (root / f"tmp/{leases[0]}").mkdir()
    with api.open(root, remake=True) as store:
        assert store.check(repair=True).ok
        protocol.lease_close(store.volume.catalog, leases[0])
    with api.open(root) as store:
        store.gc(grace=0)
        assert store.check(read_data=True).ok
        assert {f"{row.repository}:{row.tag}" for row in store.images()} == {"a:1"}
        assert {row.digest: b"".join(store.blobs.cat(row.digest)) for row in store.blobs.ls()} == content
