"""What each layer of each image takes and shares, against sets of chunks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import sample

from casstore import api
from casstore.digest import Digest
from casstore.image.layers import stacks
from casstore.model import FRAME_BITS
from casstore.upkeep.sharing import ImageShare, sharing

Piece = tuple[str, int]


def load(opened: api.Store, folder: Path, archive: bytes) -> None:
    (folder / "images.tar").write_bytes(archive)
    opened.load(folder / "images.tar")


@pytest.fixture
def filled(opened: api.Store, tmp_path: Path) -> api.Store:
    """Images that share layers, chunks below layers, and nothing; one whose layers repeat; one in gzip form."""
    base = sample.rich_layer("base")
    common = {"a": sample.text("common", 200_000), "b": sample.noise("common", 90_000)}
    images = [
        sample.image(n, [f"app:{n}"], [base, sample.files(common | {"mine": sample.noise(n, 70_000 + n)})])
        for n in range(3)
    ]
    images.append(sample.image("alone", ["alone:1"], [sample.files({"x": sample.noise("alone", 50_000)})]))
    again = sample.files({"x": sample.text("again", 60_000)})
    images.append(sample.image("twice", ["twice:1"], [again, again, sample.files({"y": sample.text("again", 60_000)})]))
    load(opened, tmp_path, sample.docker_archive(*images))
    load(opened, tmp_path, sample.oci_archive(sample.image("packed", ["packed:1"], [base])))
    return opened


def brute(store: api.Store) -> dict[str, list[tuple[int, float, float]]]:
    """Of each image's layers, chunk by chunk: how many images have it; stored; alone."""
    images: dict[str, list[tuple[Digest, dict[Piece, float]]]] = {}
    for name, layers in stacks(store.volume):
        seen: set[Piece] = set()
        for _, info in layers:
            pieces: dict[Piece, float] = {}
            if info.place.state != "packed":
                pieces[str(info.digest), 0] = info.size if info.place.state == "loose" else info.place.length
            for use in info.place.uses:
                table = store.volume.packs.pack(use.key).table
                for address, length in zip(table.addresses.tolist(), table.lengths.tolist(), strict=True):
                    if any(low <= address < high for low, high in use.intervals.tolist()):
                        frame = table.frames[address >> FRAME_BITS]
                        pieces[use.key, address] = length * int(frame["stored"]) / int(frame["raw"])
            images.setdefault(name, []).append((info.digest, {k: v for k, v in pieces.items() if k not in seen}))
            seen |= pieces.keys()
    users = Counter(piece for layers in images.values() for piece in {p for _, pieces in layers for p in pieces})
    having = Counter(digest for layers in images.values() for digest in {digest for digest, _ in layers})
    return {
        name: [
            (having[digest], sum(pieces.values()), sum(size for piece, size in pieces.items() if users[piece] == 1))
            for digest, pieces in layers
        ]
        for name, layers in images.items()
    }


def agree(told: list[ImageShare], expected: dict[str, list[tuple[int, float, float]]]) -> None:
    assert [one.reference for one in told] == list(expected)
    for image in told:
        for layer, (images, stored, alone) in zip(image.layers, expected[image.reference], strict=True):
            assert layer.images == images
            assert abs(layer.stored - stored) <= 1 and abs(layer.alone - alone) <= 1, image.reference


@pytest.mark.parametrize("collected", [False, True])
def test_layers_against_sets_of_chunks(filled: api.Store, collected: bool) -> None:
    if collected:
        list(filled.remove(["app:1"]))
        for _ in range(2):
            filled.gc(grace=0)
    told = filled.sharing()
    agree(told, brute(filled))
    by_name = {one.reference: one for one in told}
    base, mine = by_name["app:0"].layers
    # The base is the layer of the images that came as plain tars; in gzip form it is another blob.
    assert base.images == 3 - collected and base.alone == 0
    assert mine.images == 1 and 0 < mine.alone < mine.stored
    assert by_name["packed:1"].layers[0].images == 1
    first, second, _ = by_name["twice:1"].layers
    assert first.digest == second.digest and first.stored > 0 and second.stored == 0
    assert by_name["twice:1"].size < sum(layer.size for layer in by_name["twice:1"].layers)
    alone = by_name["alone:1"]
    assert alone.alone == alone.stored > 0
    stored = filled.df(verbose=False).stored_bytes
    assert sum(one.alone for one in told) < stored


def test_layers_come_in_order_and_know_their_tar(filled: api.Store) -> None:
    by_name = {one.reference: one for one in filled.sharing()}
    for number in range(3):
        made = sample.image(
            number,
            (),
            [
                sample.rich_layer("base"),
                sample.files(
                    {
                        "a": sample.text("common", 200_000),
                        "b": sample.noise("common", 90_000),
                        "mine": sample.noise(number, 70_000 + number),
                    }
                ),
            ],
        )
        assert [str(layer.diffid) for layer in by_name[f"app:{number}"].layers] == made.diff_ids
        steps = filled.history(f"app:{number}")
        assert [str(step.diffid) for step in steps] == made.diff_ids[::-1]


def test_an_index_has_the_layers_of_all_its_manifests(opened: api.Store, tmp_path: Path) -> None:
    layout, images = sample.platforms()
    (tmp_path / "many.tar").write_bytes(layout.tar())
    opened.load(tmp_path / "many.tar", all_platforms=True)
    (told,) = opened.sharing()
    assert told.reference == "many:1" and len({layer.manifest for layer in told.layers}) == len(images) == 3
    assert opened.identify("many:1") in {layer.manifest for layer in told.layers}


def test_no_images_no_shares(opened: api.Store) -> None:
    assert opened.sharing() == [] and sharing(opened.volume, [("empty", [])]) == [ImageShare("empty", ())]
