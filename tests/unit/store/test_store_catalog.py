"""The catalog: transactions, threads, processes that make it at once, and files that are not one."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import apsw
import pytest

from casstore.errors import Damaged, OutOfSpace, ReadOnlyStore, StoreUnusable
from casstore.store import catalog as module
from casstore.store.catalog import Catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Any:
    with Catalog.make(tmp_path) as made:
        yield made


def set_one(catalog: Catalog, value: str) -> None:
    with catalog.write() as tx:
        tx.run("INSERT OR REPLACE INTO config (key, value) VALUES ('one', ?)", (value,))


def one(catalog: Catalog) -> str | None:
    with catalog.read() as tx:
        return tx.value("SELECT value FROM config WHERE key = 'one'")


def test_what_is_committed_is_there_for_others(catalog: Catalog) -> None:
    set_one(catalog, "x")
    with Catalog(catalog.root) as other:
        assert one(other) == "x"


def test_an_exception_rolls_back(catalog: Catalog) -> None:
    set_one(catalog, "x")
    with pytest.raises(KeyError), catalog.write() as tx:
        tx.run("UPDATE config SET value = 'y'")
        raise KeyError
    assert one(catalog) == "x"
    set_one(catalog, "z")
    assert one(catalog) == "z"


def test_a_read_is_of_one_moment(catalog: Catalog) -> None:
    set_one(catalog, "x")
    with catalog.read() as tx:
        assert tx.value("SELECT value FROM config") == "x"
        with ThreadPoolExecutor(1) as pool:
            pool.submit(set_one, catalog, "y").result()
        assert tx.value("SELECT value FROM config") == "x"
    assert one(catalog) == "y"


def test_writers_wait_for_each_other(catalog: Catalog) -> None:
    def add() -> None:
        for _ in range(20):
            with catalog.write() as tx:
                tx.run("UPDATE gen SET value = value + 1")

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(add) for _ in range(6)]:
            done.result()
    with catalog.read() as tx:
        assert tx.value("SELECT value FROM gen") == 120


def test_a_writer_that_waits_too_long_says_so(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.05)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with catalog.write():
            entered.set()
            leave.wait()

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        entered.wait()
        with pytest.raises(StoreUnusable, match="locked"), catalog.write():
            pass
        leave.set()
        held.result()


def test_statements_run_to_their_end(catalog: Catalog) -> None:
    with catalog.write() as tx:
        tx.script("INSERT INTO config VALUES ('a', '1'); INSERT INTO config VALUES ('b', '2');")
        tx.many("INSERT INTO config VALUES (?, ?)", [("c", "3"), ("d", "4")])
        assert tx.run("UPDATE config SET value = '0' WHERE key < ?", ("c",)) == 2
        assert tx.run("DELETE FROM config WHERE key = 'none'") == 0
        first = tx.insert("INSERT INTO lease (opened_gen, expires, purpose) VALUES (1, 1, '')")
        assert tx.insert("INSERT INTO lease (opened_gen, expires, purpose) VALUES (1, 1, '')") == first + 1
        assert tx.rows("SELECT key FROM config ORDER BY key") == [("a",), ("b",), ("c",), ("d",)]
        assert list(tx.each("SELECT value FROM config WHERE key > 'b' ORDER BY key")) == [("3",), ("4",)]
        assert (tx.row("SELECT 1 WHERE 0"), tx.value("SELECT 1 WHERE 0")) == (None, None)


def test_ids_are_never_used_twice(catalog: Catalog) -> None:
    ids = []
    for _ in range(3):
        with catalog.write() as tx:
            ids.append(tx.insert("INSERT INTO lease (opened_gen, expires, purpose) VALUES (1, 1, '')"))
            tx.run("DELETE FROM lease")
    assert len(set(ids)) == 3


def test_foreign_keys_hold(catalog: Catalog) -> None:
    with pytest.raises(Damaged), catalog.write() as tx:
        tx.run("INSERT INTO child VALUES (1, 2)")


def test_commits_are_durable_unless_asked_otherwise(catalog: Catalog) -> None:
    with catalog.write() as tx:
        assert tx.value("PRAGMA synchronous") == 2
    with catalog.write(durable=False) as tx:
        assert tx.value("PRAGMA synchronous") == 1
    with catalog.write() as tx:
        assert tx.value("PRAGMA synchronous") == 2
        assert tx.value("PRAGMA journal_mode") == "wal"


def test_lock_times_are_told(catalog: Catalog) -> None:
    told: list[tuple[str, float]] = []
    catalog.on_write.append(lambda name, seconds: told.append((name, seconds)))
    with catalog.write("a step") as tx:
        pass
    assert told == [("a step", tx.held)]
    assert tx.held > 0


def test_the_log_is_copied_back(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_PAGES", 20)
    log = catalog.path.with_name("catalog.sqlite-wal")
    for turn in range(40):
        with catalog.write() as tx:
            tx.run("INSERT OR REPLACE INTO config VALUES (?, ?)", (str(turn % 4), "x" * 20000))
    assert log.stat().st_size < 100 * 4096
    catalog.checkpoint()


def test_several_may_make_it_at_once(tmp_path: Path) -> None:
    code = "import sys; from casstore.store.catalog import Catalog; Catalog.make(sys.argv[1]).close()"
    made = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(4)]
    assert [one.wait(60) for one in made] == [0] * 4
    with Catalog(tmp_path) as catalog, catalog.read() as tx:
        epoch = tx.value("SELECT value FROM meta WHERE key = 'epoch'")
        assert tx.value("SELECT count(*) FROM gen") == 1
    assert (tmp_path / "epoch").read_text().split() == [epoch]


def test_threads_that_end_let_go_of_their_connections(catalog: Catalog) -> None:
    for _ in range(3):
        thread = threading.Thread(target=one, args=(catalog,))
        thread.start()
        thread.join()
    assert len(catalog._open) <= 2


def test_it_can_be_used_again_after_close(catalog: Catalog) -> None:
    set_one(catalog, "x")
    catalog.close()
    assert one(catalog) == "x"


# -- files that are not one


def test_no_catalog(tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="no catalog"):
        Catalog(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be read as one" * 100])
def test_a_file_that_is_no_catalog(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "catalog.sqlite").write_bytes(content)
    with pytest.raises((StoreUnusable, Damaged)) as caught:
        Catalog(tmp_path)
    assert "catalog.sqlite" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_catalog_of_a_newer_schema(catalog: Catalog) -> None:
    with catalog.write() as tx:
        tx.run("UPDATE meta SET value = '99' WHERE key = 'schema'")
    with pytest.raises(StoreUnusable, match="newer"):
        Catalog(catalog.root)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (apsw.FullError, OutOfSpace),
        (apsw.ReadOnlyError, ReadOnlyStore),
        (apsw.CorruptError, Damaged),
        (apsw.IOError, StoreUnusable),
    ],
)
def test_errors_of_sqlite_are_told_in_our_words(
    catalog: Catalog, error: type[apsw.Error], expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught, catalog.write():
        raise error("disk I/O error")
    assert "catalog.sqlite" in str(caught.value)
    set_one(catalog, "x")  # and the lock is free again


# -- read-only


def test_read_only_beside_a_writer(catalog: Catalog) -> None:
    set_one(catalog, "x")
    with Catalog(catalog.root, read_only=True) as reader:
        assert one(reader) == "x"
        set_one(catalog, "y")
        assert one(reader) == "y"
        reader.checkpoint()
        with pytest.raises(ReadOnlyStore, match="store is read-only"), reader.write():
            pass


def test_read_only_on_a_medium_that_nobody_can_write(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    set_one(catalog, "x")
    catalog.close()
    assert not catalog.path.with_name("catalog.sqlite-wal").exists()
    monkeypatch.setattr(module.os, "access", lambda *_: False)
    before = {path.name for path in catalog.root.iterdir()}
    with Catalog(catalog.root) as reader:
        assert reader.read_only
        assert one(reader) == "x"
    assert {path.name for path in catalog.root.iterdir()} == before
