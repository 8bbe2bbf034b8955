"""Files inside images through fsspec: what pandas and pyarrow open, fsspec's own tests, and what a store adds."""

from __future__ import annotations

import errno
import io
import os
import pickle
import random
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import sample
from sample import entry

from casstore import api
from casstore.errors import StoreUnusable, UsageError
from casstore.store.packs import PackCache

fsspec = pytest.importorskip("fsspec", reason="pip install casstore[fsspec]")
from fsspec.tests import abstract  # noqa: E402

from casstore import fs as casstore_fs  # noqa: E402
from casstore.fs import CasstoreFileSystem  # noqa: E402

DIR, LINK, FILE = b"5", b"2", b"0"
CSV = b"name,count\none,1\ntwo,2\n"
BIG = sample.noise("big", 9_000_000)
BELOW = sample.tar(
    [
        entry("srv", kind=DIR),
        entry("srv/data.csv", b"hidden by the layer above"),
        entry("srv/big", BIG),
        entry("srv/deep", kind=DIR),
        entry("srv/deep/er", kind=DIR),
        entry("srv/deep/er/leaf", b"leaf"),
        entry("srv/old", b"goes"),
        entry("dev", kind=DIR),
        entry("dev/null", kind=b"3", devmajor=1, devminor=3),
    ]
)
ABOVE = sample.tar(
    [
        entry("srv", kind=DIR),
        entry("srv/data.csv", CSV, mode=0o640, uid=7, gid=8),
        entry("srv/.wh.old"),
        entry("lib", kind=LINK, linkname="/srv/deep"),
        entry("srv/alias.csv", kind=LINK, linkname="../lib/../data.csv"),
        entry("srv/nowhere", kind=LINK, linkname="/no/such"),
        entry("srv/na\xefve \u2713", b"not ascii"),
    ]
)
APP = sample.image("app", ["app:v1", "reg.example:5000/team/app:v1"], [BELOW, ABOVE])
OTHER = sample.image("other", ["other:latest", "team:latest", "team/sub:v2"])


def gzipped(*images: sample.Image) -> bytes:
    layout = sample.Layout()
    for one in images:
        for tag in one.tags:
            prefix = "" if ":5000" in tag else "docker.io/" if "/" in tag else "docker.io/library/"
            layout.name(layout.manifest(one, packed=True), prefix + tag)
    return layout.tar()


FORMS = {"plain": sample.docker_archive, "gzip": gzipped}


def load(path: Path, archive: bytes) -> None:
    (path.parent / "archive.tar").write_bytes(archive)
    with api.open(path) as store:
        store.load(path.parent / "archive.tar")


@pytest.fixture(params=FORMS)
def root(request: pytest.FixtureRequest, store_path: Path) -> Path:
    """A store with APP and OTHER, in one of the forms in which layers come."""
    load(store_path, FORMS[request.param](APP, OTHER))
    return store_path


@pytest.fixture
def plain(store_path: Path) -> Path:
    load(store_path, sample.docker_archive(APP, OTHER))
    return store_path


@pytest.fixture
def mount() -> Iterator[Callable[..., CasstoreFileSystem]]:
    """mount(store, …): the file system, closed in the end."""
    made: list[CasstoreFileSystem] = []

    def make(store: Path, **more: Any) -> CasstoreFileSystem:
        made.append(CasstoreFileSystem(store, skip_instance_cache=True, **more))
        return made[-1]

    yield make
    for one in made:
        one.close()


Mount = Callable[..., CasstoreFileSystem]


# -- who it is for


def test_pandas_reads_a_file_of_an_image(root: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pip install pandas")
    for name in ("srv/data.csv", "srv/alias.csv"):
        frame = pandas.read_csv(f"casstore://app:v1/{name}", storage_options={"store": str(root)})
        assert frame.to_dict("list") == {"name": ["one", "two"], "count": [1, 2]}


@pytest.mark.parametrize("pack", FORMS)
def test_pyarrow_reads_columns_of_a_file_of_an_image(pack: str, store_path: Path, mount: Mount) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pip install pyarrow")
    from pyarrow import dataset, parquet

    table = pyarrow.table({f"column {i}": [random.Random(i * n).random() for n in range(20_000)] for i in range(4)})
    files = []
    for part in range(2):
        out = io.BytesIO()
        parquet.write_table(table, out, row_group_size=5_000)
        files.append(entry(f"data/{part}.parquet", out.getvalue()))
    layer = sample.tar([entry("data", kind=DIR), *files])
    load(store_path, FORMS[pack](sample.image("parquet", ["data:1"], [layer])))
    fs = mount(store_path)
    found = parquet.read_table("data:1/data/1.parquet", filesystem=fs, columns=["column 2"])
    assert found.equals(table.select(["column 2"]))
    both = dataset.dataset("data:1/data", filesystem=fs, format="parquet")
    assert both.count_rows() == 2 * len(table)


def test_urls_say_which_store(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"casstore://app:v1/srv/data.csv::{plain}", f"casstore://app:v1/srv/data.csv::file://{plain}"):
        with fsspec.open(url) as file:
            assert file.read() == CSV
    with fsspec.open(
        "simplecache::casstore://app:v1/srv/data.csv",
        casstore={"store": plain},
        simplecache={"cache_storage": str(plain.parent / "cache")},
    ) as file:
        assert file.read() == CSV
    monkeypatch.setitem(fsspec.config.conf, "casstore", {"store": str(plain)})
    assert fsspec.open("casstore://app:v1/srv/data.csv", "rt").open().read() == CSV.decode()


def test_the_entry_point_is_the_class() -> None:
    text = (Path(__file__).resolve().parents[3] / "pyproject.toml").read_text("utf-8")
    module, _, name = tomllib.loads(text)["project"]["entry-points"]["fsspec.specs"]["casstore"].partition(":")
    assert (module, name) == (CasstoreFileSystem.__module__, CasstoreFileSystem.__name__)
    assert fsspec.get_filesystem_class("casstore") is CasstoreFileSystem


def test_no_store_is_an_error_and_none_is_made(tmp_path: Path, mount: Mount) -> None:
    with pytest.raises(UsageError, match="which store"):
        CasstoreFileSystem()
    with pytest.raises(StoreUnusable):
        mount(tmp_path / "none").ls("")
    assert not (tmp_path / "none").exists()


# -- where the reference ends


def test_references_of_every_kind(plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    with api.open(plain) as store:
        row = next(row for row in store.images() if row.repository == "app")
    for given in (
        "app:v1",
        "docker.io/library/app:v1",
        "reg.example:5000/team/app:v1",
        f"app@{row.digest}",
        f"reg.example:5000/team/app:v1@{row.digest}",
        str(row.id),
        row.id.hex,
        row.id.hex[:12],
        f"sha256:{row.id.hex[:7]}",
    ):
        assert fs.cat_file(f"casstore://{given}/srv/data.csv") == CSV, given
        assert fs.ls(given, detail=False) == [f"{given}/{name}" for name in ("dev", "lib", "srv")]


def test_short_digits_are_a_name_and_no_id(plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    with api.open(plain) as store:
        digits = store.identify("app:v1") and next(row.id.hex for row in store.images() if row.repository == "app")
    assert fs.exists(f"{digits[:12]}/srv") and not fs.exists(f"{digits[:11]}/srv")


def test_the_shortest_reference_wins_and_one_with_a_tag_before_one_without(plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    assert fs.isfile("other/file")
    assert fs.isfile("team/file")  # team:latest
    assert fs.isfile("team/sub:v2/file")  # and not sub:v2/file in team:latest
    assert not fs.exists("team/sub/file")  # team:latest has no such folder


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("nope:3/srv/data.csv", "nope:3"),
        ("reg.example:5000/team/nope:3/a:b", "reg.example:5000/team/nope:3"),
        ("nope/a/b", "nope"),
        ("UPPER:case/x", "UPPER:case"),
    ],
)
def test_the_error_names_the_image_that_is_not_there(path: str, named: str, plain: Path, mount: Mount) -> None:
    with pytest.raises(FileNotFoundError, match=f"{named}: no such image in {plain}"):
        mount(plain).open(path)


def test_a_file_that_is_not_there_is_not_blamed_on_the_image(plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    for path in ("app:v1/srv/old", "app:v1/srv/data.csv/x", "app:v1/srv/nowhere"):
        with pytest.raises(FileNotFoundError) as caught:
            fs.info(path)
        assert caught.value.filename == path and "image" not in str(caught.value.strerror)


def test_above_the_images_are_folders_of_names(plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    assert fs.ls("", detail=False) == ["app:v1", "other:latest", "reg.example:5000", "team", "team:latest"]
    assert fs.ls("reg.example:5000", detail=False) == ["reg.example:5000/team"]
    assert fs.isdir("reg.example:5000/team") and not fs.exists("reg.example")
    assert fs.glob("reg*/*/app:v1/srv/*.csv") == [
        f"reg.example:5000/team/app:v1/srv/{name}" for name in ("alias.csv", "data.csv")
    ]
    assert "reg.example:5000/team/app:v1/srv/deep/er/leaf" in fs.find("")


# -- what is there


def test_rows_tell_what_the_image_has(root: Path, mount: Mount) -> None:
    fs = mount(root)
    row = fs.info("app:v1/srv/data.csv")
    assert row == {
        "name": "app:v1/srv/data.csv",
        "size": len(CSV),
        "type": "file",
        "mode": 0o640,
        "uid": 7,
        "gid": 8,
        "mtime": 1_700_000_000.0,
        "islink": False,
    }
    assert fs.modified("app:v1/srv/data.csv").timestamp() == row["mtime"]
    listed = {one["name"]: one for one in fs.ls("app:v1/srv")}
    assert listed[row["name"]] == row
    assert {name.removeprefix("app:v1/srv/"): one["type"] for name, one in listed.items()} == {
        "alias.csv": "file",
        "big": "file",
        "data.csv": "file",
        "deep": "directory",
        "na\xefve \u2713": "file",
        "nowhere": "link",
    }
    assert [one["type"] for one in fs.ls("app:v1/dev")] == ["other"]
    assert fs.ls("app:v1/srv/data.csv") == [row]


def test_symlinks_are_followed_inside_the_image(root: Path, mount: Mount) -> None:
    fs = mount(root)
    assert fs.cat_file("app:v1/lib/er/leaf") == b"leaf"
    assert fs.isdir("app:v1/lib") and fs.info("app:v1/lib")["destination"] == "/srv/deep"
    alias = fs.info("app:v1/srv/alias.csv")
    assert (alias["type"], alias["size"], alias["islink"]) == ("file", len(CSV), True)
    assert fs.glob("app:v1/lib/*/leaf") == ["app:v1/lib/er/leaf"]
    assert fs.find("app:v1/lib") == ["app:v1/lib/er/leaf"]


def test_find_has_each_file_once_and_nothing_that_cannot_be_read(root: Path, mount: Mount) -> None:
    fs = mount(root)
    files = [f"app:v1/srv/{name}" for name in ("alias.csv", "big", "data.csv", "deep/er/leaf", "na\xefve \u2713")]
    assert fs.find("app:v1") == files
    assert all(fs.cat(files).values())
    assert fs.find("app:v1", maxdepth=1, withdirs=True) == ["app:v1", *(f"app:v1/{n}" for n in ("dev", "lib", "srv"))]
    assert fs.find("app:v1", maxdepth=1) == fs.find("app:v1/no/such") == []
    assert fs.find("app:v1/srv/big", detail=True) == {"app:v1/srv/big": fs.info("app:v1/srv/big")}
    assert fs.du("app:v1/srv/deep") == len(b"leaf")
    with pytest.raises(ValueError, match="at least 1"):
        fs.find("app:v1", maxdepth=0)


def test_walk_and_find_agree(root: Path, mount: Mount) -> None:
    fs = mount(root)
    walked = {
        f"{folder}/{name}"
        for folder, _, files in fs.walk("app:v1", detail=True)
        for name, row in files.items()
        if row["type"] == "file"
    }
    assert walked == set(fs.find("app:v1")) and len(walked) == 5


def test_what_is_no_file_does_not_open(plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    for read in (fs.open, fs.cat_file):
        with pytest.raises(IsADirectoryError):
            read("app:v1/srv")
        with pytest.raises(OSError, match="not a regular file"):
            read("app:v1/dev/null")


@pytest.mark.parametrize(
    "change",
    [
        lambda fs: fs.open("app:v1/new", "wb"),
        lambda fs: fs.open("app:v1/srv/data.csv", "ab"),
        lambda fs: fs.pipe_file("app:v1/new", b""),
        lambda fs: fs.touch("app:v1/new"),
        lambda fs: fs.mkdir("app:v1/new"),
        lambda fs: fs.makedirs("app:v1/new"),
        lambda fs: fs.rm("app:v1/srv", recursive=True),
        lambda fs: fs.rm_file("app:v1/srv/data.csv"),
        lambda fs: fs.mv("app:v1/srv/data.csv", "app:v1/new"),
        lambda fs: fs.cp_file("app:v1/srv/data.csv", "app:v1/new"),
    ],
)
def test_nothing_changes_an_image(change: Callable[[CasstoreFileSystem], object], plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    with pytest.raises(OSError, match="read-only") as caught:
        change(fs)
    assert caught.value.errno == errno.EROFS
    assert fs.cat_file("app:v1/srv/data.csv") == CSV


def test_keys_follow_the_bytes_and_not_the_names(root: Path, mount: Mount) -> None:
    fs = mount(root)
    key = fs.ukey("app:v1/srv/data.csv")
    assert key == fs.ukey("reg.example:5000/team/app:v1/srv/alias.csv")
    assert fs.checksum("app:v1/srv/data.csv") == fs.checksum("reg.example:5000/team/app:v1/srv/data.csv")
    assert len({key, fs.ukey("app:v1/srv/big"), fs.ukey("app:v1/srv"), fs.ukey("app:v1"), fs.ukey("other/file")}) == 5


# -- bytes


def test_ranges_as_slices(root: Path, mount: Mount) -> None:
    fs = mount(root)
    for start, end in [(None, None), (0, 10), (5, -3), (-20, None), (-20, -5), (7, 7), (9, 3), (len(BIG), None)]:
        assert fs.cat_file("app:v1/srv/big", start, end) == BIG[start:end]
    wanted = fs.cat_ranges(["app:v1/srv/big", "app:v1/srv/data.csv"], [100, 2], [1_100, 6])
    assert wanted == [BIG[100:1_100], CSV[2:6]]
    assert fs.read_block("app:v1/srv/data.csv", 3, 9, b"\n") == b"one,1\n"


def test_an_open_file_goes_anywhere(root: Path, mount: Mount) -> None:
    chance = random.Random(4)
    with mount(root).open("app:v1/srv/big") as file, io.BytesIO(BIG) as same:
        for _ in range(60):
            to, count = chance.randrange(len(BIG) + 100), chance.choice([0, 1, 100, 70_000, 2_000_000])
            assert file.seek(to) == same.seek(to)
            assert file.read(count) == same.read(count)
        assert file.seek(-5, os.SEEK_END) and file.read() == BIG[-5:]
        assert file.size == len(BIG) and not file.writable()


def test_the_end_of_a_file_is_read_without_its_beginning(
    plain: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[tuple[str, int]] = set()
    frames = PackCache.frames

    def counted(self: PackCache, key: str, numbers: Any) -> dict[int, bytes]:
        numbers = list(numbers)
        asked.update((key, number) for number in numbers)
        return frames(self, key, numbers)

    fs = mount(plain)
    fs.info("app:v1")
    monkeypatch.setattr(PackCache, "frames", counted)
    with fs.open("app:v1/srv/big") as file:
        assert not asked
        file.seek(len(BIG) - 1000)
        assert file.read() == BIG[-1000:]
        few = len(asked)
        assert file.seek(0) == 0 and file.read() == BIG
    assert 0 < few <= 2 < len(asked)


def test_both_travel_to_other_processes(root: Path, mount: Mount) -> None:
    fs = fsspec.filesystem("casstore", store=str(root))
    assert pickle.loads(pickle.dumps(fs)).cat_file("app:v1/srv/data.csv") == CSV
    assert fsspec.AbstractFileSystem.from_json(fs.to_json()) is fs
    with fs.open("app:v1/srv/big") as file:
        file.seek(5_000_000)
        file.read(10)
        with pickle.loads(pickle.dumps(file)) as copy:
            assert copy.read(20) == BIG[5_000_010:5_000_030]
            assert copy == file
    fs.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking beside threads: that is what is tested
def test_a_fork_opens_the_store_for_itself(root: Path, mount: Mount) -> None:
    fs = mount(root)
    with fs.open("app:v1/srv/big") as file:
        assert file.read(10) == BIG[:10]
        file.seek(8_000_000)
        child = os.fork()
        if not child:
            try:
                right = file.read(1000) == BIG[8_000_000:8_001_000] and fs.cat_file("app:v1/srv/data.csv") == CSV
                fs.close()
            except BaseException:
                right = False
            os._exit(0 if right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert file.read(1000) == BIG[8_000_000:8_001_000]


# -- beside the store's other work


def leases(store: Path) -> int:
    with api.open(store) as opened, opened.volume.catalog.read() as tx:
        return int(tx.value("SELECT count(*) FROM lease"))


def many(store: Path, count: int) -> list[bytes]:
    contents = [sample.text(("many", number), 300_000) for number in range(count)]
    images = [sample.image(n, [f"many:{n}"], [sample.files({"f": data})]) for n, data in enumerate(contents)]
    load(store, sample.docker_archive(*images))
    return contents


def test_few_images_stay_open_and_those_in_use_do(store_path: Path, mount: Mount) -> None:
    contents = many(store_path, 6)
    fs = mount(store_path, images=2)
    for number, data in enumerate(contents):
        assert fs.cat_file(f"many:{number}/f") == data
    assert leases(store_path) == 2
    files = [fs.open(f"many:{number}/f") for number in range(6)]
    assert leases(store_path) == 6
    for file, data in zip(files, contents, strict=True):
        assert file.read() == data
        file.close()
    fs.info("many:0/f")
    assert leases(store_path) == 2
    fs.close()
    assert leases(store_path) == 0
    assert fs.cat_file("many:3/f") == contents[3]


def test_images_that_nobody_uses_are_closed_after_a_while(
    plain: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(casstore_fs, "IDLE", 0.02)
    fs = mount(plain)
    with fs.open("other/file") as file:
        fs.info("app:v1/srv")
        while leases(plain) > 1:  # else the test's own limit of time tells
            time.sleep(0.01)
        assert file.read(3) == sample.text("other", 40_000)[:3]
    while leases(plain):
        time.sleep(0.01)
    assert fs.cat_file("app:v1/srv/data.csv") == CSV


def test_many_threads_and_more_images_than_may_stay_open(store_path: Path, mount: Mount) -> None:
    contents = many(store_path, 5)
    fs = mount(store_path, images=1)

    def work(seed: int) -> int:
        chance = random.Random(seed)
        right = 0
        for _ in range(25):
            number = chance.randrange(5)
            start = chance.randrange(300_000)
            if chance.random() < 0.5:
                got = fs.cat_file(f"many:{number}/f", start, start + 5_000)
            else:
                with fs.open(f"many:{number}/f", block_size=4096) as file:
                    file.seek(start)
                    got = file.read(5_000)
            right += got == contents[number][start : start + 5_000]
        return right

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [25] * 8
    assert leases(store_path) <= 8


def test_a_tag_that_moves_is_noticed_and_open_files_stay(plain: Path, mount: Mount) -> None:
    fs = mount(plain)
    was = fs.ukey("app:v1")
    with fs.open("app:v1/srv/big", block_size=1000) as file, api.open(plain) as store:
        assert file.read(10) == BIG[:10]
        store.tag("other", "app:v1")
        assert fs.ls("app:v1", detail=False) == ["app:v1/file"] and fs.ukey("app:v1") != was
        list(store.remove(["reg.example:5000/team/app:v1"]))
        store.gc(grace=0)
        file.seek(4_000_000)
        assert file.read(100_000) == BIG[4_000_000:4_100_000]
    assert not fs.exists("reg.example:5000/team/app:v1/srv")


# -- fsspec's own tests of reading file systems


class _Scenarios(abstract.BaseAbstractFixtures):
    """What fsspec's tests find, made by their own recipes into a layer."""

    def makedirs(self, path: str) -> None:
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            self.entries.setdefault("/".join(parts[:count]), entry("/".join(parts[:count]), kind=DIR))

    def touch(self, path: str) -> None:
        self.pipe(path, b"")

    def pipe(self, path: str, value: bytes) -> None:
        self.makedirs(path.rpartition("/")[0])
        self.entries[path] = entry(path, value)

    def layer(self) -> bytes:
        self.entries: dict[str, Any] = {}
        for name, make in {
            "bulk": self._bulk_operations_scenario_0,
            "glob": self._glob_edge_cases_files,
            "prefix": self._dir_and_file_with_same_name_prefix,
            "hashed": self._10_files_with_hashed_names,
        }.items():
            make(self, lambda *parts: "/".join(parts), name)
        return sample.tar(self.entries.values())


class TestGet(abstract.AbstractGetTests, abstract.AbstractFixtures):
    test_get_directory_recursive = None  # it makes its own files, and images are read-only

    @pytest.fixture(scope="class")
    @classmethod
    def scenarios(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        store = tmp_path_factory.mktemp("scenarios") / "store"
        load(store, sample.docker_archive(sample.image(0, ["all:1"], [_Scenarios().layer()])))
        return store

    @pytest.fixture
    def fs(self, scenarios: Path, mount: Mount) -> CasstoreFileSystem:
        return mount(scenarios)

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self) -> str:
        return "all:1/bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self) -> str:
        return "all:1/glob/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self) -> str:
        return "all:1/prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self) -> str:
        return "all:1/hashed/source"
