"""The catalog: one SQLite database, in WAL mode, whose transactions are the store's only commit points.

`Catalog.read()` gives a snapshot, `Catalog.write()` the write lock (BEGIN IMMEDIATE) and a durable commit.
Each thread has a connection of its own. What the transactions may do is the business of `protocol` and
`collector`.

STORE/epoch holds the random word that the catalog holds too. A catalog restored from a backup has an older
one: the collector then deletes nothing (see `epoch.turn_epoch`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import apsw

from ..errors import CasstoreError, Damaged, OutOfSpace, ReadOnlyStore, StoreUnusable
from . import schema
from .disk import replace_file, sync_folder, translate

BUSY_SECONDS = 60.0
CHECKPOINT_PAGES = 2000
"""The log is copied back into the database when it is longer than this (4 KiB pages)."""

Values = Sequence[Any]
_MISREAD = (UnicodeDecodeError, TypeError, ValueError, OverflowError)
"""What a damaged page can lead to: SQLite hands out whatever the bytes of a row say, in any type."""


# A statement that does not fit the tables (SQLError): their definitions are damaged.
_CORRUPT = (apsw.CorruptError, apsw.NotADBError, apsw.ConstraintError, apsw.SQLError, apsw.MismatchError)


class Tx:
    """A transaction, for reading. Rows are tuples."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, tuple(values)).fetchall()

    def each(self, sql: str, values: Values = ()) -> Iterator[tuple[Any, ...]]:
        """Rows one by one; only while the transaction is open."""
        yield from self._connection.execute(sql, tuple(values))

    def row(self, sql: str, values: Values = ()) -> tuple[Any, ...] | None:
        return self._connection.execute(sql, tuple(values)).fetchone()

    def value(self, sql: str, values: Values = ()) -> Any:
        """The first column of the first row, None without one."""
        row = self.row(sql, values)
        return None if row is None else row[0]

    def now(self) -> float:
        """Seconds since 1970 by the catalog's clock."""
        return float(self.value("SELECT unixepoch('subsec')"))


class WriteTx(Tx):
    """A transaction that holds the write lock, on the catalog of the store at `root`."""

    def __init__(self, connection: apsw.Connection, root: Path) -> None:
        super().__init__(connection)
        self.root = root
        self.held = 0.0
        """Seconds that the lock was held, known after the commit."""
        self.renamed = False
        """Whether this transaction has noted that it changes names (see `references`)."""

    def fits(self) -> bool:
        """Whether the store's files are those that this catalog knows: STORE/epoch has its word. Both change under the
        write lock only."""
        word = str(self.value("SELECT value FROM meta WHERE key = 'epoch'"))
        try:
            with (self.root / "epoch").open("rb") as file:
                return word in file.read(4096).decode("ascii", "replace").split()
        except OSError:
            return False

    def run(self, sql: str, values: Values = ()) -> int:
        """One statement, run to its end; returns the number of rows that it changed."""
        # apsw is lazy: a statement that is not exhausted may not have run to its end.
        for _ in self._connection.execute(sql, tuple(values)):
            pass
        return int(self._connection.changes())

    def many(self, sql: str, values: Iterable[Values]) -> None:
        """One statement for each of `values`."""
        for _ in self._connection.executemany(sql, [tuple(one) for one in values]):
            pass

    def insert(self, sql: str, values: Values = ()) -> int:
        """One INSERT; returns the id that the row got."""
        self.run(sql, values)
        return int(self._connection.last_insert_rowid())

    def script(self, sql: str) -> None:
        """Several statements."""
        for _ in self._connection.execute(sql):
            pass


def _translate(error: apsw.Error, what: str) -> CasstoreError:
    # Where there is no room for the shared memory beside the catalog, SQLite speaks of an I/O error.
    if isinstance(error, apsw.FullError) or (isinstance(error, apsw.IOError) and not _room(what)):
        return OutOfSpace("no space left", what=what)
    if isinstance(error, apsw.ReadOnlyError):
        return ReadOnlyStore(what)
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreUnusable("the catalog stayed locked by another process", what=what)
    if isinstance(error, _CORRUPT):
        return Damaged(f"the catalog is damaged: {error}", what=what, hint="run casstore check --repair")
    return StoreUnusable(f"the catalog cannot be used: {error}", what=what)


def _room(path: str) -> bool:
    """Is a byte free where this file lies?"""
    try:
        return os.statvfs(Path(path).parent).f_bavail > 0
    except OSError:
        return True


class Catalog:
    """The catalog of the store at `root`. Thread-safe; not to be carried across a fork.

    `read_only`: True opens for reading only, None finds out whether the files may be written. Each of `on_write` is
    called after a write transaction of this process with its name and the seconds that it held the write lock.
    """

    def __init__(self, root: Path, *, read_only: bool | None = None) -> None:
        self.root = Path(root)
        self.path = self.root / "catalog.sqlite"
        if not self.path.is_file():
            raise Damaged("the store has no catalog", what=str(self.path), hint="run casstore check --repair")
        writable = os.access(self.path, os.W_OK) and os.access(self.root, os.W_OK)
        self.read_only = not writable if read_only is None else read_only
        self.on_write: list[Callable[[str, float], None]] = []
        self.on_final: Callable[[], None] | None = None
        """Called just before a commit that is what its caller came for: to interrupt from there on is too late."""
        self._local = threading.local()
        self._line = threading.RLock()
        self._open: weakref.WeakSet[apsw.Connection] = weakref.WeakSet()
        self._lock = threading.Lock()
        with self.read() as tx:
            whole = tx.value("SELECT 1 FROM sqlite_master WHERE name = 'meta'") is not None
            version = str(tx.value("SELECT value FROM meta WHERE key = 'schema'")) if whole else ""
        if not version.isdecimal():
            raise Damaged("this is no catalog", what=str(self.path), hint="run casstore check --repair")
        if int(version) > schema.VERSION:
            raise StoreUnusable(f"the catalog has schema {version}, made by a newer casstore", what=str(self.path))

    @classmethod
    def make(cls, root: Path, *, lost: str = "") -> Self:
        """Make the catalog where there is none; several may do it at once. Returns it opened.

        `lost`: why a store that had one gets a new one. It does not fit the store's files then, so that nothing is
        deleted, until `check` has filled it.
        """
        path = Path(root) / "catalog.sqlite"
        try:
            connection = _connect(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
            try:
                path.chmod(0o600)
                connection.execute("BEGIN IMMEDIATE")
                tx = WriteTx(connection, path.parent)
                if tx.value("SELECT 1 FROM sqlite_master WHERE name = 'meta'") is None:
                    tx.script(schema.TABLES)
                    epoch = secrets.token_hex(16)
                    tx.many(
                        "INSERT INTO meta (key, value) VALUES (?, ?)",
                        [("schema", str(schema.VERSION)), ("epoch", epoch), ("created", f"{tx.now():.3f}")],
                    )
                    if lost:
                        tx.run("INSERT INTO meta (key, value) VALUES ('lost', ?)", (lost,))
                        # Numbers of leases must not come again: a process of before may still hold one.
                        first = tx.insert(
                            "INSERT INTO lease (id, opened_gen, expires, purpose) VALUES (?, 0, 0, '')",
                            (secrets.randbits(48),),
                        )
                        tx.run("DELETE FROM lease WHERE id = ?", (first,))
                    # Under the write lock and before the commit: a crash between leaves a file that the next
                    # maker overwrites, never a catalog whose file is missing.
                    replace_file(path.with_name("epoch"), f"{'lost' if lost else epoch}\n".encode())
                tx.run("COMMIT")
            finally:
                connection.close()
        except apsw.Error as error:
            raise _translate(error, str(path)) from error
        return cls(root)

    @classmethod
    def remake(cls, root: Path, judge: Callable[[Tx], str] = lambda _: "") -> None:
        """Where the catalog is missing, so damaged that it cannot be trusted, or no good by what `judge` says, move it
        into STORE/quarantine and make one anew, to be filled by `check`. Nobody else may be using it."""
        # One at a time: who comes second must not move away what the first has made.
        handle = os.open(Path(root) / "store.json", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            try:
                with cls(root) as catalog:
                    why = catalog.examine()
                    if not why:
                        with catalog.read() as tx:
                            why = judge(tx)
            except Damaged as error:
                why = error.message
            if why:
                _set_aside(Path(root))
                cls.make(root, lost=why).close()
        finally:
            os.close(handle)

    def examine(self) -> str:
        """What is wrong with the database itself; "" if nothing is. What its rows say of the store is not looked at."""
        try:
            with self.read() as tx:
                told = [str(row[0]) for row in tx.rows("PRAGMA integrity_check(4)")]
                torn = tx.row("PRAGMA foreign_key_check")
                if told != ["ok"]:
                    return "; ".join(" ".join(line.split()) for line in told)
                if torn is not None:
                    return f"a row of {torn[0]} points at none of {torn[2]}"
                for table, columns in schema.TEXTS.items():
                    for _ in tx.each(f"SELECT {columns} FROM {table}"):
                        pass
                for table, condition in schema.PLAUSIBLE:
                    if tx.row(f"SELECT 1 FROM {table} WHERE NOT ({condition})") is not None:
                        return f"a row of {table} says what nobody wrote"
        except Damaged as error:
            return error.message
        return ""

    # -- transactions

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """A snapshot: everything read in it is of one moment (that of its first statement)."""
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield Tx(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        except apsw.Error as error:
            raise _translate(error, str(self.path)) from error
        except _MISREAD as error:
            self._misread(error)
            raise

    @contextmanager
    def write(self, name: str = "", *, durable: bool = True, final: bool = False) -> Iterator[WriteTx]:
        """The write lock; committed at the end, rolled back by any exception. `name` is for `on_write`.

        A `durable` commit is on disk, with all that were before it. One that is not may be undone by a power
        loss, but only together with all that were after it: for steps of which none is relied on outside the
        catalog. `final`: see `on_final`.
        """
        if self.read_only:
            raise ReadOnlyStore(str(self.root))
        # Threads of one process stand in line: to be woken is faster than to look again and again.
        waited = self._line.acquire(timeout=BUSY_SECONDS)
        try:
            yield from self._write(name, durable, final)
        finally:
            if waited:
                self._line.release()
        # Not SQLite's automatic checkpoint: that one runs inside COMMIT. This one needs no write lock.
        if self._local.log_pages > CHECKPOINT_PAGES:
            with contextlib.suppress(apsw.Error):  # what was committed stands
                self._checkpoint(self._connection())

    def _write(self, name: str, durable: bool, final: bool) -> Iterator[WriteTx]:
        try:
            connection = self._connection()
            connection.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            began = time.perf_counter()
            tx = WriteTx(connection, self.root)
            try:
                yield tx
                if final:
                    self.decided()
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            tx.held = time.perf_counter() - began
            for told in tuple(self.on_write):
                told(name, tx.held)
        except apsw.Error as error:
            raise _translate(error, str(self.path)) from error
        except _MISREAD as error:
            self._misread(error)
            raise

    def _misread(self, error: Exception) -> None:
        """Damaged, if what a transaction stumbled over is a value that nobody wrote."""
        if isinstance(error, UnicodeDecodeError) or self.examine():
            raise Damaged(
                "the catalog is damaged: a row says what nobody wrote",
                what=str(self.path),
                hint="run casstore check --repair",
            ) from error

    def decided(self) -> None:
        """What the caller came for is about to become visible: tell `on_final`."""
        if self.on_final is not None:
            self.on_final()

    def checkpoint(self) -> None:
        """Copy the log back into the database as far as no reader is in the way."""
        if not self.read_only:
            try:
                self._checkpoint(self._connection())
            except apsw.Error as error:
                raise _translate(error, str(self.path)) from error

    def _checkpoint(self, connection: apsw.Connection) -> None:
        self._local.log_pages = 0
        try:
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.BusyError:
            pass  # another process is at it

    def close(self) -> None:
        """Close all connections. No thread may be in a transaction."""
        with self._lock:
            for connection in list(self._open):
                connection.close()
            self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- connections

    def _connection(self) -> apsw.Connection:
        connection: apsw.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._read_only() if self.read_only else _connect(self.path, apsw.SQLITE_OPEN_READWRITE)
            local = self._local
            local.log_pages = 0

            def log_grew(_: apsw.Connection, __: str, pages: int) -> int:
                local.log_pages = pages
                return 0

            if not self.read_only:
                connection.set_wal_hook(log_grew)
            local.connection = connection
            with self._lock:
                self._open.add(connection)
        return connection

    def _read_only(self) -> apsw.Connection:
        # A database in WAL mode wants its log and shared memory even of readers. Where nobody left a log and
        # none can be made (a read-only medium), the file alone is whole and cannot change: "immutable".
        where = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        log = self.path.with_name(self.path.name + "-wal")
        if not log.exists() and not os.access(self.root, os.W_OK):
            where += "&immutable=1"
        connection = apsw.Connection(where, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)
        connection.set_busy_handler(_patience())
        connection.pragma("query_only", True)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except apsw.CantOpenError:
            if not log.exists():
                raise
            # What is in the log alone belongs to the catalog, and it takes shared memory to read it.
            raise StoreUnusable(
                "a command that was killed has left a log, which cannot be read here",
                what=str(log),
                hint="use the store once where it may be written",
            ) from None
        return connection


def _set_aside(root: Path) -> None:
    folder = root / "quarantine"
    suffix = secrets.token_hex(4)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for part in ("-shm", "-wal", ""):
            path = root / f"catalog.sqlite{part}"
            if path.exists():
                path.rename(folder / f"catalog.{suffix}.sqlite{part}")
        sync_folder(folder)
        sync_folder(root)
    except OSError as error:
        raise translate(error, str(folder)) from error


def _connect(path: Path, flags: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_handler(_patience())
    # The change to WAL needs the file alone and does not ask the busy handler.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            break
        except apsw.BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    for pragma in ("synchronous = FULL", "foreign_keys = ON", "cache_size = -16384", "temp_store = MEMORY"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def _patience() -> Callable[[int], bool]:
    """A busy handler: waits a few ms at a time, at random, so that many writers share the lock fairly."""
    began = 0.0

    def wait(count: int) -> bool:
        nonlocal began
        now = time.monotonic()
        if count == 0:
            began = now
        if now - began > BUSY_SECONDS:
            return False
        time.sleep(min(0.0005 * (count + 1), 0.01) * (0.5 + random.random()))
        return True

    return wait
