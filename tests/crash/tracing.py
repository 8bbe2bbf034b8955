"""Runs a command under ptrace and stops it at each call that changes files below given folders.

strace injects faults too, but keeps its counts for each thread and each kind of call: the one fsync of a worker thread
that comes after ten of the main thread's cannot be named. Here calls of all threads are numbered in one row, in the
order in which they happen: while one of them runs, no other starts. x86-64 Linux only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

_TRACEME, _CONT, _SYSCALL, _SETOPTIONS, _GETREGSET, _SETREGSET = 0, 7, 24, 0x4200, 0x4204, 0x4205
_OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
"""TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC, TRACESECCOMP, EXITKILL."""
_EVENT_EXEC, _EVENT_SECCOMP = 4, 7
_WALL = 0x40000000
_AT_FDCWD = -100

# What changes files. A call that the kernel has and that is not here goes unseen: `write` and `pwrite64` are all that
# Python and SQLite use; that it stays so is checked by _FORBIDDEN.
_NUMBERS = {
    1: "write",
    18: "pwrite64",
    74: "fsync",
    75: "fdatasync",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    86: "link",
    87: "unlink",
    257: "openat",
    258: "mkdirat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    316: "renameat2",
}
_FORBIDDEN = {20: "writev", 40: "sendfile", 76: "truncate", 85: "creat", 285: "fallocate", 296: "pwritev"}
_FORBIDDEN |= {326: "copy_file_range", 328: "pwritev2", 275: "splice", 2: "open", 88: "symlink", 266: "symlinkat"}
_FORBIDDEN |= {9: "mmap", 425: "io_uring_setup", 437: "openat2"}
_MMAP, _OPENAT = 9, 257
_O_TMPFILE = 0o20000000
_MAKES = os.O_CREAT | os.O_TRUNC | _O_TMPFILE
_SHARED_MEMORY = b"-shm"
"""Of files with this ending mapped memory is changed: it does not outlive the processes that share it."""

_RAX, _RDX, _RSI, _RDI, _ORIG_RAX, _R10, _R8 = 10, 12, 13, 14, 15, 7, 9


@dataclass(slots=True)
class Call:
    """One call that changes files. `kind`: write, sync, create, truncate, rename, link, unlink, mkdir or rmdir.
    `path` and `other` (the new name) are absolute. Of a write: `offset`, `length` and, when recorded, `data`."""

    number: int
    name: str
    kind: str
    path: str
    other: str = ""
    offset: int = 0
    length: int = 0
    data: bytes = b""
    done: bool = False
    """It was carried out, without error."""


@dataclass(frozen=True, slots=True)
class Strike:
    """What befalls a call. "kill": SIGKILL instead of it; "torn": half of the write, then SIGKILL; "fail": it returns
    the errno `value` and does nothing; "signal": the process gets the signal `value`, the call is carried out."""

    kind: str
    value: int = 0


@dataclass(slots=True)
class Run:
    """A command that ended: exit code, or None after SIGKILL; and all its calls."""

    code: int | None
    out: bytes
    err: bytes
    calls: list[Call] = field(default_factory=list)
    timed_out: bool = False
    struck: bool = False


def unavailable() -> str:
    """Why commands cannot be traced here; "" where they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the tracer knows x86-64 Linux only"
    try:
        with tempfile.TemporaryDirectory() as folder:
            ran = run(["/bin/true"], roots=[Path(folder)])
    except OSError as error:
        return f"ptrace is not allowed here: {error}"
    return "" if ran.code == 0 else "ptrace does not work here"


Command: TypeAlias = "Sequence[str] | Callable[[], int]"
"""What to run: argv, or a function, which is run in a fork of this process and returns the exit code."""


def run(
    command: Command,
    *,
    roots: Sequence[Path],
    decide: Callable[[Call], Strike | None] = lambda call: None,
    record: bool = False,
    stdin: int | None = None,
    environment: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> Run:
    """Run a command to its end. `decide` is asked before each call on a path below `roots`; `stdin` is a descriptor
    (else /dev/null). Longer than `timeout` seconds: killed, `timed_out`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        files = [stdin, out.fileno(), err.fileno()]
        tracer = _Tracer([os.fsencode(os.path.realpath(root)) for root in roots], decide, record)
        ran = tracer.run(command, files, dict(os.environ if environment is None else environment), timeout)
        out.seek(0)
        err.seek(0)
        ran.out, ran.err = out.read(), err.read()
    return ran


class _Tracer:
    def __init__(self, roots: list[bytes], decide: Callable[[Call], Strike | None], record: bool) -> None:
        self._roots = roots
        self._decide = decide
        self._record = record
        self._calls: list[Call] = []
        self._struck = False
        self._pid = 0
        self._memory = -1

    def run(self, command: Command, files: Sequence[int | None], environment: dict[str, str], timeout: float) -> Run:
        filter_, program = _filter()
        pid = self._pid = os.fork()
        if not pid:
            _child(command, files, environment, program)
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        watchdog = threading.Timer(timeout, expire)
        try:
            os.waitpid(pid, 0)
            self._open_memory()
            _ptrace(_SETOPTIONS, pid, _OPTIONS)
            _ptrace(_CONT, pid, 0)
            watchdog.start()
            status = self._loop()
        finally:
            watchdog.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # where we were interrupted; never a stranger: it was not reaped
            if self._memory >= 0:
                os.close(self._memory)
            del filter_
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) != signal.SIGKILL:
            code = -os.WTERMSIG(status)
        return Run(code, b"", b"", self._calls, expired.is_set(), self._struck)

    def _loop(self) -> int:
        while True:
            # The process group is ours alone: no other child of this process is taken by mistake.
            try:
                tid, status = os.waitpid(-self._pid, _WALL)
            except ChildProcessError:
                return self._lost
            if not os.WIFSTOPPED(status):
                self._lost = status
                if tid == self._pid:
                    return status
                continue
            self._stopped(tid, status)

    _lost = 0

    def _stopped(self, tid: int, status: int) -> None:
        event, sig = status >> 16, os.WSTOPSIG(status)
        passed = 0
        if event == _EVENT_EXEC:
            self._open_memory()
        elif event == _EVENT_SECCOMP:
            self._call(tid)
            return
        elif event == 0 and sig not in (signal.SIGSTOP, signal.SIGTRAP):
            passed = sig
        _ptrace(_CONT, tid, passed, gone=True)

    def _call(self, tid: int) -> None:
        regs = _registers(tid)
        if regs is None:
            return
        call = self._understand(tid, regs)
        if call is None:
            _ptrace(_CONT, tid, 0, gone=True)
            return
        call.number = len(self._calls) + 1
        self._calls.append(call)
        strike = self._decide(call)
        kind = "" if strike is None else strike.kind
        self._struck = self._struck or bool(kind)
        if kind == "kill":
            os.kill(self._pid, signal.SIGKILL)
            return
        if kind == "torn":
            regs[_RDX] = regs[_RDX] // 2
            _set_registers(tid, regs)
        elif kind == "fail" and strike is not None:
            regs[_ORIG_RAX] = (1 << 64) - 1
            regs[_RAX] = (1 << 64) - strike.value
            _set_registers(tid, regs)
        elif kind == "signal" and strike is not None:
            os.kill(self._pid, strike.value)
        # To its end before any other call of the process goes on.
        if not _ptrace(_SYSCALL, tid, 0, gone=True):
            return
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(tid, _WALL)
            if not os.WIFSTOPPED(status):
                if tid == self._pid:
                    self._lost = status
                return
            if status >> 8 == signal.SIGTRAP | 0x80:
                after = _registers(tid)
                if after is not None:
                    result = after[_RAX] - (1 << 64) if after[_RAX] >> 63 else after[_RAX]
                    call.done = result >= 0
                    if call.kind == "write" and call.done:
                        call.length = result
                        call.data = call.data[:result]
            if kind == "torn":
                os.kill(self._pid, signal.SIGKILL)
                return
            _ptrace(_CONT, tid, 0, gone=True)

    def _open_memory(self) -> None:
        if self._memory >= 0:
            os.close(self._memory)
        self._memory = os.open(f"/proc/{self._pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    # -- what a call means

    def _understand(self, tid: int, regs: list[int]) -> Call | None:
        number = regs[_ORIG_RAX]
        args = [regs[_RDI], regs[_RSI], regs[_RDX], regs[_R10], regs[_R8]]
        name = _NUMBERS.get(number, "")
        if number in _FORBIDDEN:
            self._forbidden(tid, number, args)
            return None
        if name in ("write", "pwrite64", "fsync", "fdatasync", "ftruncate"):
            path = self._open_file(tid, args[0])
            if not self._ours(path):
                return None
            if name in ("fsync", "fdatasync"):
                return Call(0, name, "sync", os.fsdecode(path))
            if name == "ftruncate":
                return Call(0, name, "truncate", os.fsdecode(path), length=args[1])
            offset = args[3] if name == "pwrite64" else self._position(tid, args[0])
            data = os.pread(self._memory, args[2], args[1]) if self._record else b""
            return Call(0, name, "write", os.fsdecode(path), offset=offset, length=args[2], data=data)
        return self._name_call(tid, name, args)

    def _forbidden(self, tid: int, number: int, args: list[int]) -> None:
        """A call that would change a file unseen ends the run; on other files, or for reading, it may be made."""
        name = _FORBIDDEN[number]
        if name == "open" and not args[1] & _MAKES:
            return
        match name:
            case "io_uring_setup":
                where = self._roots[0]
            case "truncate" | "creat" | "open":
                where = os.fsencode(self._path(tid, None, args[0]))
            case "symlink":
                where = os.fsencode(self._path(tid, None, args[1]))
            case "symlinkat":
                where = os.fsencode(self._path(tid, args[1], args[2]))
            case "openat2":
                where = os.fsencode(self._path(tid, args[0], args[1]))
            case "splice" | "copy_file_range":
                where = self._open_file(tid, args[2])
            case "mmap":
                where = self._open_file(tid, args[4])
            case _:
                where = self._open_file(tid, args[0])
        if self._ours(where) and not (name == "mmap" and where.endswith(_SHARED_MEMORY)):
            raise NotImplementedError(f"the tracer does not know what {name} does to {where!r}")

    def _name_call(self, tid: int, name: str, args: list[int]) -> Call | None:
        """Calls on names."""
        other = ""
        if name in ("rename", "link"):
            path, other = self._path(tid, None, args[0]), self._path(tid, None, args[1])
        elif name in ("renameat", "renameat2", "linkat"):
            path, other = self._path(tid, args[0], args[1]), self._path(tid, args[2], args[3])
        elif name in ("openat", "mkdirat", "unlinkat"):
            path = self._path(tid, args[0], args[1])
        else:
            path = self._path(tid, None, args[0])
        if not (self._ours(os.fsencode(path)) or self._ours(os.fsencode(other))):
            return None
        if name == "openat" and args[2] & _O_TMPFILE:
            raise NotImplementedError(f"the tracer does not know files without a name, as here in {path}")
        kind = {"openat": "create", "unlinkat": "rmdir" if args[2] & 0x200 else "unlink"}.get(name, name)
        kind = kind.removesuffix("2").removesuffix("at")
        length = args[2] & os.O_TRUNC if kind == "create" else 0
        return Call(0, name, kind, path, other, length=length)

    def _ours(self, path: bytes) -> bool:
        return any(path == root or path.startswith(root + b"/") for root in self._roots)

    def _open_file(self, tid: int, fd: int) -> bytes:
        try:
            return os.fsencode(Path(f"/proc/{tid}/fd/{fd & 0xFFFFFFFF}").readlink())
        except OSError:
            return b""

    def _position(self, tid: int, fd: int) -> int:
        text = Path(f"/proc/{tid}/fdinfo/{fd}").read_text()
        if int(text.split("flags:")[1].split()[0], 8) & os.O_APPEND:
            return Path(f"/proc/{tid}/fd/{fd}").stat().st_size
        return int(text.split("pos:")[1].split()[0])

    def _path(self, tid: int, at: int | None, address: int) -> str:
        name = self._string(address)
        if not name.startswith(b"/"):
            where = _AT_FDCWD if at is None else ctypes.c_int(at & 0xFFFFFFFF).value
            here = where == _AT_FDCWD
            folder = os.fsencode(Path(f"/proc/{tid}/cwd").readlink()) if here else self._open_file(tid, where)
            name = folder + b"/" + name
        return os.path.normpath(os.fsdecode(name))

    def _string(self, address: int) -> bytes:
        found = b""
        while b"\0" not in found:
            page = 4096 - (address + len(found)) % 4096
            piece = os.pread(self._memory, page, address + len(found))
            if not piece:
                break
            found += piece
        return found.split(b"\0")[0]


# -- the kernel's side


def _ptrace(request: int, tid: int, data: int, *, gone: bool = False, address: int = 0) -> bool:
    """False where the thread died meanwhile and `gone` says that this is fine."""
    if _libc.ptrace(request, tid, address, data) != -1:
        return True
    number = ctypes.get_errno()
    if gone and number == errno.ESRCH:
        return False
    raise OSError(number, os.strerror(number), f"ptrace({request})")


class _IoVec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _registers(tid: int) -> list[int] | None:
    buffer = ctypes.create_string_buffer(27 * 8)
    vector = _IoVec(ctypes.addressof(buffer), len(buffer))
    if not _ptrace(_GETREGSET, tid, ctypes.addressof(vector), gone=True, address=1):
        return None
    return list(struct.unpack("27Q", buffer.raw))


def _set_registers(tid: int, values: list[int]) -> None:
    buffer = ctypes.create_string_buffer(struct.pack("27Q", *values), 27 * 8)
    vector = _IoVec(ctypes.addressof(buffer), len(buffer))
    _ptrace(_SETREGSET, tid, ctypes.addressof(vector), gone=True, address=1)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _filter() -> tuple[Any, _Program]:
    """A seccomp filter: the calls above stop for the tracer (of openat only those that make or empty a file, of mmap
    only those that share writable memory), all others run at full speed."""
    load, equal, some, give = 0x20, 0x15, 0x45, 0x06
    stop, allow = 0x7FF00000, 0x7FFF0000
    numbers = [n for n in (*_NUMBERS, *_FORBIDDEN) if n not in (_OPENAT, _MMAP)]
    # load nr · one test each · openat: load flags, test · mmap: load protection, test, load flags, test · allow · stop
    code = [(load, 0, 0, 0)]
    for at, number in enumerate(numbers):
        code.append((equal, len(numbers) - at + 8, 0, number))
    code += [
        (equal, 0, 2, _OPENAT),
        (load, 0, 0, 32),
        (some, 6, 5, _MAKES),
        (equal, 0, 4, _MMAP),
        (load, 0, 0, 32),
        (some, 0, 2, 0x2),  # PROT_WRITE
        (load, 0, 0, 40),
        (some, 1, 0, 0x1),  # MAP_SHARED
        (give, 0, 0, allow),
        (give, 0, 0, stop),
    ]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code), len(code) * 8)
    return packed, _Program(len(code), ctypes.addressof(packed))


def _child(command: Command, files: Sequence[int | None], environment: dict[str, str], program: _Program) -> None:
    """After the fork: everything up to exec, or to the function's end. Never returns."""
    code = 127
    try:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_RDWR)
        for target, source in enumerate(files):
            os.dup2(null if source is None else source, target)
        _ptrace(_TRACEME, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        if callable(command):  # Python ignores or handles these
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_IGN)
            sys.stdin, sys.stdout, sys.stderr = (open(fd, mode) for fd, mode in enumerate("rww"))  # noqa: SIM115
            os.environ.clear()
            os.environ.update(environment)
        if _libc.prctl(38, 1, 0, 0, 0) or _libc.prctl(22, 2, ctypes.byref(program), 0, 0):
            os._exit(126)
        if callable(command):
            code = 70
            code = command()
            sys.stdout.flush()
            sys.stderr.flush()
        else:
            os.execve(command[0], list(command), environment)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)
