"""Rows that are whole and wrong: no checksum of SQLite's tells, and nobody reads wrong bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import sample

from casstore import api
from casstore.errors import Damaged


def test_a_loose_blob_whose_row_points_at_anothers_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        layer = sample.files({name: sample.noise(name, 50_000)})
        (tmp_path / name).write_bytes(sample.oci_archive(sample.image(name, [f"{name}:1"], [layer]), packed=False))
    with api.open(tmp_path / "store") as store:
        store.load(tmp_path / "a", pack="never")
        store.load(tmp_path / "b", pack="never")
        loose = [row.digest for row in store.blobs.ls() if row.state == "loose"]
        catalog = store.volume.catalog
        with catalog.write("swap") as tx:
            places = {
                digest: tx.row("SELECT id, loc, spot, size FROM blob WHERE digest = ?", (digest.raw,))
                for digest in loose
            }
            (one, mine), (_, other) = list(places.items())[:2]
            assert mine is not None and other is not None and other[3] == mine[3]
            tx.run("INSERT OR IGNORE INTO place (blob, object, used) VALUES (?, ?, x'')", (mine[0], other[1]))
            tx.run("UPDATE blob SET loc = ?, spot = ? WHERE id = ?", (other[1], other[2], mine[0]))
        with pytest.raises(Damaged):
            b"".join(store.blobs.cat(one, 1000, 2000))


def test_a_loose_blob_whose_checks_are_wrong_in_the_row(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(sample.oci_archive(sample.image("a", ["a:1"], [sample.files({"a": b"a" * 50_000})])))
    with api.open(tmp_path / "store") as store:
        store.load(tmp_path / "a", pack="never")
        (digest,) = (row.digest for row in store.blobs.ls() if row.state == "loose")
        right = b"".join(store.blobs.cat(digest))
        with store.volume.catalog.write("spoil") as tx:
            tx.run("UPDATE blob SET spot = zeroblob(length(spot)) WHERE digest = ?", (digest.raw,))
        with pytest.raises(Damaged):
            b"".join(store.blobs.cat(digest))
    with api.open(tmp_path / "store", remake=True) as store:
        assert store.check(read_data=True, repair=True).ok
        assert b"".join(store.blobs.cat(digest)) == right
        assert b"".join(store.blobs.cat(digest, 100, 120)) == right[100:120]
