"""Pictures: what is in them, not how it is laid out."""

from __future__ import annotations

import io
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
import sample
from running import Cas

from casstore import api
from casstore.cli.plot import MOST, plot_df, plot_history
from casstore.cli.svg import Page, ticks
from casstore.digest import Digest
from casstore.image.history import HistoryLine
from casstore.upkeep.df import DfReport
from casstore.upkeep.sharing import ImageShare, LayerShare

SVG = "{http://www.w3.org/2000/svg}"
REPORT = DfReport(2, 9, 10_000_000, 5, 5, 3_000_000)


def layer(name: str, stored: int, alone: int = 0, images: int = 1, manifest: str = "m") -> LayerShare:
    digest, of = Digest.of(name.encode()), Digest.of(manifest.encode())
    return LayerShare(of, digest, digest, 3 * stored, images, stored, alone)


def tree(svg: str) -> ElementTree.Element:
    """Parsed, and looked at for what no picture may have."""
    root = ElementTree.fromstring(svg)
    names = {each.tag.removeprefix(SVG) for each in root.iter()}
    assert names <= {"svg", "title", "style", "rect", "line", "text", "g"}
    for each in root.iter():
        assert not any(name.startswith("on") or name.endswith("href") for name in each.attrib)
    return root


def groups(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [each for each in root.iter(f"{SVG}g") if each.get("class") == kind]


def texts(element: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in element.iter(f"{SVG}text")]


def boxes(element: ElementTree.Element, *kinds: str) -> list[ElementTree.Element]:
    return [each for each in element.iter(f"{SVG}rect") if each.get("class") in kinds]


PARTS = ("alone", "chunks", "few", "some", "many")


def test_a_bar_for_each_image_a_box_for_each_part() -> None:
    images = [
        ImageShare("small:1", (layer("base", 1_000_000, 0, 2),)),
        ImageShare("large:1", (layer("base", 1_000_000, 0, 2), layer("own", 3_000_000, 1_000_000))),
    ]
    root = tree(plot_df(images, REPORT))
    first, second = groups(root, "image")
    assert (first.get("data-name"), second.get("data-name")) == ("large:1", "small:1")  # the largest first
    drawn = boxes(first, *PARTS)
    assert [box.get("class") for box in drawn] == ["few", "chunks", "alone"]
    base, chunks, alone = (float(box.get("width", 0)) for box in drawn)
    assert chunks == pytest.approx(2 * base, rel=0.02) and alone == pytest.approx(base, rel=0.02)
    for left, right in pairwise(drawn):  # side by side, nothing over another
        assert float(left.get("x", 0)) + float(left.get("width", 0)) <= float(right.get("x", 0)) + 0.01
    assert [box.get("class") for box in boxes(second, *PARTS)] == ["few"]
    assert texts(first) == ["large:1", "4MB", "1MB"] and texts(second) == ["small:1", "1MB", "0B"]
    tips = [box.findtext(f"{SVG}title") or "" for box in drawn]
    assert Digest.of(b"own").hex[:12] in tips[2] and "1MB stored, only in this image" in tips[2]
    assert any("2 images · 10MB of blobs · 3MB stored" in text for text in texts(root))


def test_the_legend_has_the_colours_that_are_there() -> None:
    def legend(*layers: LayerShare) -> list[str]:
        known = {"only in this image", "shared below the layer"}
        found = texts(tree(plot_df([ImageShare("a", layers)], REPORT)))
        return [text for text in found if text in known or text.startswith("layer in")]

    assert legend(layer("a", 10, 10)) == ["only in this image"]
    assert legend(layer("a", 10, 4)) == ["only in this image", "shared below the layer"]
    counts = [layer(str(n), 10, 0, n) for n in (2, 3, 9, 10, 300)]
    assert legend(*counts) == ["layer in 2 images", "layer in 3 to 9 images", "layer in 10 images or more"]


@pytest.mark.parametrize("count", [0, 1, 2, MOST, MOST + 1, MOST + 40])
def test_any_number_of_images(count: int) -> None:
    images = [ImageShare(f"app:{n}", (layer(str(n), 1000 + n, 500),)) for n in range(count)]
    root = tree(plot_df(images, REPORT))
    drawn = groups(root, "image")
    assert len(drawn) == min(count, MOST)
    height = float(root.get("height", 0))
    lowest = max((float(box.get("y", 0)) + float(box.get("height", 0)) for box in boxes(root, *PARTS)), default=0)
    assert lowest < height
    others = groups(root, "others")
    assert len(others) == (count > MOST)
    if others:
        rest = count - MOST
        assert f"and {rest} smaller image{'' if rest == 1 else 's'}" in texts(others[0])
        shown = {each.get("data-name") for each in drawn}
        assert not shown & {f"app:{n}" for n in range(rest)}


def test_layers_too_small_to_see_stay_inside_of_their_bar() -> None:
    layers = (*(layer(f"tiny {n}", 1 + n % 3, n % 2) for n in range(2000)), layer("large", 10_000_000))
    (bar,) = groups(tree(plot_df([ImageShare("a", layers)], REPORT)), "image")
    right = max(float(box.get("x", 0)) + float(box.get("width", 0)) for box in boxes(bar, *PARTS))
    left = min(float(box.get("x", 0)) for box in boxes(bar, *PARTS))
    assert right - left <= 591


BAD = ["</text><script>alert(1)</script>", "\"&<>'", "\x00\x1b[31m\x7f", "\ud800\uffff", "\u202egnp.exe", "a\nb\tc"]


@pytest.mark.parametrize("text", BAD)
def test_texts_are_only_texts(text: str) -> None:
    image = ImageShare(text, (layer("x", 100, 40),))
    step = HistoryLine(None, "", text, 0, text, Digest.of(b"x"))
    for svg in (plot_df([image], REPORT), plot_history(text, [step], Digest.of(b"m"), [image])):
        root = tree(svg)
        assert not set("".join(root.itertext())) & set("\x00\x1b\x7f\u202e\ud800\uffff")
        svg.encode()  # and it can be written
    assert any("&<>" in one for one in texts(tree(plot_df([ImageShare(BAD[1], ())], REPORT))))


def test_long_names_are_cut_and_kept_in_full_as_a_tip() -> None:
    name = "registry.example.com:5000/" + "x" * 80 + ":v1"
    (group,) = groups(tree(plot_df([ImageShare(name, (layer("a", 10),))], REPORT)), "image")
    label = next(group.iter(f"{SVG}text"))
    assert label.text and label.text.startswith("…") and label.text.endswith("x:v1") and len(label.text) < 50
    assert label.findtext(f"{SVG}title") == name


def test_both_schemes_paint_every_class() -> None:
    root = tree(plot_df([ImageShare("a", (layer("a", 10, 5),))], REPORT))
    style = root.findtext(f"{SVG}style") or ""
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    used = {name for each in root.iter() for name in (each.get("class") or "").split()}
    for name in used - {"casstore", "mono", "image"}:
        colours = [re.findall(rf"\.{name}\{{(?:fill|stroke):(#\w+)\}}", part) for part in (light, dark)]
        assert all(len(found) == 1 for found in colours) and colours[0] != colours[1], name


@pytest.mark.parametrize("largest", [0, 1, 4, 5, 7, 99, 1000, 12_345, 64_520_874, 10**9 + 1, 7 * 10**15])
def test_ticks_are_round_and_few(largest: int) -> None:
    found = list(ticks(largest))
    assert found[0] == 0 and found[-1] <= largest and len(found) <= 6
    assert largest < 5 or len(found) >= 3
    steps = {b - a for a, b in pairwise(found)}
    assert len(steps) <= 1 and all(re.fullmatch("(1|2|25|5)0*", str(step)) for step in steps)


def test_nothing_is_written_twice_by_a_page() -> None:
    page = Page(100, "t", {})
    page.box(1, 2.5, 1 / 3, 4, "band")
    root = tree(page.render(10))
    (box,) = boxes(root, "band")
    assert (box.get("x"), box.get("y"), box.get("width"), box.get("height")) == ("1", "2.5", "0.33", "4")
    assert page.render(10) == page.render(10)


# -- history


def steps(*made: tuple[str, str | None]) -> list[HistoryLine]:
    """(created by, layer) from the newest on."""
    return [HistoryLine(None, "", by, 0, "", Digest.of(name.encode()) if name else None) for by, name in made]


def test_steps_from_the_newest_and_their_layers() -> None:
    base, own = layer("base", 4_000_000, 0, 3), layer("own", 1_000_000, 250_000)
    images = [
        ImageShare("app:2", (base, own)),
        ImageShare("app:1", (layer("base", 4_000_000, 0, 3, "other"),)),
        ImageShare("base:1", (layer("base", 4_000_000, 0, 3, "third"),)),
    ]
    made = steps(("/bin/sh -c #(nop)  CMD [a]", None), ("COPY . .", "own"), ("", "base"))
    root = tree(plot_history("app:2", made, Digest.of(b"m"), images))
    assert [each.get("data-name") for each in groups(root, "layer")] == [str(own.digest), str(base.digest)]
    assert texts(groups(root, "step")[0]) == ["CMD [a]"]
    first, second = groups(root, "layer")
    assert texts(first) == ["COPY . .", "1MB", "3MB", "none, but 750kB in chunks of others"]
    assert texts(second) == ["(not told)", "4MB", "12MB", "app:1, base:1"]
    assert [box.get("class") for box in boxes(first, *PARTS)] == ["chunks", "alone"]
    assert [box.get("class") for box in boxes(second, *PARTS)] == ["some"]
    assert any("3 steps · 2 layers · 5MB stored · 250kB of it only for this image" in text for text in texts(root))


def test_many_others_are_counted() -> None:
    images = [ImageShare(f"application:{n}", (layer("base", 10, 0, 50, f"m{n}"),)) for n in range(50)]
    root = tree(plot_history("application:0", steps(("x", "base")), Digest.of(b"m0"), images))
    (row,) = groups(root, "layer")
    told = texts(row)[-1]
    found = re.fullmatch(r"(application:\d+(?:, application:\d+)*), and (\d+) more", told)
    assert found and len(found[1].split(", ")) + int(found[2]) == 49 and len(told) <= 40


def test_history_and_layers_need_not_agree() -> None:
    layers = (layer("a", 10), layer("b", 20), layer("c", 30))
    images = [ImageShare("x", layers)]
    root = tree(plot_history("x", steps(("second", "b"), ("first", "a")), Digest.of(b"m"), images))
    assert [texts(each)[0] for each in groups(root, "layer")] == ["(not in the history)", "second", "first"]
    # An image of which nothing is known has steps, and no bars.
    root = tree(plot_history("x", steps(("second", "b"), ("first", "a")), Digest.of(b"unknown"), images))
    assert len(groups(root, "step")) == 2 and not groups(root, "layer")


def test_of_an_index_only_the_image_that_is_meant() -> None:
    both = ImageShare("many:1", (layer("amd", 10, 0, 2), layer("arm", 10, 10, 1, "arm")))
    alone = ImageShare("amd:1", (layer("amd", 10, 0, 2),))
    for images in ([both, alone], [alone, both]):
        root = tree(plot_history("amd:1", steps(("x", "amd")), Digest.of(b"m"), images))
        (row,) = groups(root, "layer")
        assert texts(row)[-1] == "many:1"


# -- the commands


@pytest.fixture
def filled(store_path: Path) -> Path:
    with api.open(store_path) as store:
        archive = store_path.parent / "images.tar"
        archive.write_bytes(sample.docker_archive(*(sample.rich_image(n, [f"rich:{n}"]) for n in range(3))))
        store.load(archive)
    return store_path


def test_df_and_history_draw_files(cas: Cas, filled: Path, tmp_path: Path) -> None:
    for argv, kind, count in ((("df",), "image", 3), (("history", "rich:1"), "layer", 3)):
        target = tmp_path / "out.svg"
        target.write_text("old")
        assert cas(*argv, "--plot", target).out == ""
        assert len(groups(tree(target.read_text("utf-8")), kind)) == count
        assert sorted(path.name for path in tmp_path.iterdir()) == ["images.tar", "out.svg", "store"]
        out = cas(*argv, "--plot", "-").raw
        assert out == target.read_bytes() and ElementTree.parse(io.BytesIO(out))


@pytest.mark.parametrize("argv", [("df",), ("history", "rich:1")])
def test_targets_that_are_refused(cas: Cas, filled: Path, tmp_path: Path, argv: tuple[str, ...]) -> None:
    assert "is a directory" in cas(*argv, "--plot", tmp_path, ok=False).err
    assert "does not exist" in cas(*argv, "--plot", tmp_path / "no" / "out.svg", ok=False).err
    done = cas(*argv, "--plot", tmp_path / "out.svg", "--format", "json", ok=False)
    assert done.code == 125 and "exclude each other" in done.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images.tar", "store"]


def test_what_fails_leaves_the_old_picture(cas: Cas, filled: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.svg"
    target.write_text("old")
    assert "No such image" in cas("history", "nope", "--plot", target, ok=False).err
    assert target.read_text() == "old"


def test_an_empty_store_is_drawn(cas: Cas) -> None:
    assert any("nothing to draw" in text for text in texts(tree(cas("df", "--plot", "-").out)))
