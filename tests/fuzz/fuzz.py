"""Fuzzing: builds and runs the targets, tells what they did. `make fuzz`; `python tests/fuzz/fuzz.py --help`.

A target in C is linked with libFuzzer under ASan and UBSan; one in Python runs under atheris (fuzz_worker.py), which
guides the same libFuzzer by the coverage of casstore's own code. Both begin with the inputs in seeds/ and found/, and
with what earlier runs kept under build/fuzz.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NATIVE_FOLDER = ROOT / "_native"
SEEDS, FOUND = HERE / "seeds", HERE / "found"

_DEFLATE = [
    *("deflate_parse.c", "deflate_tables.c", "deflate_write.c", "stretch.c", "trace.c"),
    *sorted(path.name for path in NATIVE_FOLDER.glob("engine*.c")),
]
#: Targets in C, and the files of `_native` that each is linked with.
NATIVE = {
    "tarscan": ["tarscan.c", "tar_header.c"],
    "cut": ["cut.c"],
    "table": ["table.c"],
    "spans": ["spans.c", "sha256.c"],
    "deflate": _DEFLATE,
    "trace": _DEFLATE,
}
ENGINES = ("deflate", "trace")
"""Targets that spend their time in loops over content, where to guide by each comparison takes most of it."""
PYTHON = (
    *("recipe", "pack", "index", "documents", "archive", "layer", "tree", "gzip"),
    *("registry", "credentials", "bundle"),
)
TARGETS = (*NATIVE, *PYTHON)

SANITIZE = "-fsanitize=address,undefined"
FLAGS = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-fno-sanitize-recover=all"]
UNGUIDED = ["-O2", "-fno-sanitize-coverage=trace-cmp"]
#: What an input may take: seconds, MiB of all memory.
LIMITS = ["-timeout=60", "-rss_limit_mb=4096"]
OPTIONS = {
    "tarscan": ["-malloc_limit_mb=4", "-max_len=16384"],  # it keeps at most 1 MiB of each extended header
    "archive": ["-max_len=8192"],
    "layer": ["-max_len=16384"],
    "tree": ["-max_len=16384"],
    "bundle": ["-max_len=16384"],
}
GRACE = 120
"""Seconds after its time after which a run is stuck."""


@dataclass(frozen=True)
class Run:
    """What one target did. `coverage`: edges seen at the beginning and at the end. `finding`: the input that failed."""

    target: str
    seed: int
    executions: int
    coverage: tuple[int, int]
    cpu_seconds: float
    finding: str | None
    log: str

    def __str__(self) -> str:
        line = f"{self.target:10} {self.executions:>10} executions  coverage {self.coverage[0]} → {self.coverage[1]}"
        line += f"  {self.cpu_seconds:.0f} s of CPU  seed {self.seed}"
        return line if self.finding is None else f"{line}  FOUND {self.finding}"


class Missing(Exception):
    """What a target needs is not installed here."""


def build(name: str, folder: Path, *, fuzzer: bool) -> Path:
    """The program of a C target: with libFuzzer by clang, or for replaying files by any compiler. Missing: none that
    can."""
    compiler = "clang" if fuzzer else os.environ.get("CC", "cc")
    sanitize = SANITIZE + (",fuzzer" if fuzzer else "")
    _probe(compiler, sanitize, folder, fuzzer)
    flags = [*FLAGS, *(UNGUIDED if fuzzer and name in ENGINES else [])]
    program = folder / f"{name}-{'fuzz' if fuzzer else 'replay'}"
    sources = [HERE / f"fuzz_{name}.c", *(NATIVE_FOLDER / each for each in NATIVE[name])]
    sources += [] if fuzzer else [HERE / "fuzz_replay.c"]
    include = [f"-I{NATIVE_FOLDER}", f"-I{NATIVE_FOLDER / 'tests'}"]
    command = [compiler, sanitize, *flags, *include, *map(str, sources), "-o", str(program)]
    made = subprocess.run(command, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(made.stderr)
    return program


@cache
def _probe(compiler: str, sanitize: str, folder: Path, fuzzer: bool) -> None:
    source = folder / "probe.c"
    entry = "int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }"
    source.write_text(entry if fuzzer else "int main(void) { return 0; }")
    try:
        subprocess.run([compiler, sanitize, source, "-o", folder / "probe"], check=True, capture_output=True, text=True)
    except OSError as error:
        raise Missing(f"no {compiler}: {error}") from None
    except subprocess.CalledProcessError as error:
        raise Missing(f"{compiler} makes no programs with {sanitize} here: {error.stderr[:400]}") from None


def command(name: str, work: Path) -> list[str]:
    """How a target is started."""
    if name in NATIVE:
        return [str(build(name, work, fuzzer=True))]
    if importlib.util.find_spec("atheris") is None:
        raise Missing("atheris is not installed: pip install atheris")
    return [sys.executable, str(HERE / "fuzz_worker.py"), name]


def fuzz(name: str, seconds: int, work: Path, seed: int) -> Run:
    """Run one target; what it finds lies in work/found."""
    start = command(name, work)
    kept, found = work / "kept" / name, work / "found"
    for folder in (kept, found):
        folder.mkdir(parents=True, exist_ok=True)
    options = [f"-max_total_time={seconds}", f"-seed={seed}", "-len_control=0", "-max_len=4096", "-print_final_stats=1"]
    options += [*LIMITS, *OPTIONS.get(name, []), f"-artifact_prefix={found}/{name}-", *_dictionary(name, work)]
    inputs = [str(kept), *(str(each / name) for each in (SEEDS, FOUND) if (each / name).is_dir())]
    before = {each.name for each in found.iterdir()}
    log = work / f"{name}.log"
    began = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen([*start, *options, *inputs], stdout=out, stderr=out, cwd=HERE)
        _wait(process, seconds + GRACE)
    cpu = _cpu.pop(process.pid, time.monotonic() - began)
    text = log.read_text("utf-8", "replace")
    executions = re.findall(r"number_of_executed_units: (\d+)", text) or re.findall(r"^#(\d+)", text, re.M) or ["0"]
    coverage = [int(each) for each in re.findall(r"cov: (\d+)", text)] or [0]
    fresh = sorted({each.name for each in found.iterdir()} - before)
    finding = str(found / fresh[0]) if fresh else None
    if finding is None and process.returncode:
        finding = f"(no input) ended with {process.returncode}"
    edges = (coverage[0], coverage[-1])
    return Run(name, seed, int(executions[-1]), edges, cpu, finding, text)


_cpu: dict[int, float] = {}


def _wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until it ends; killed where it is stuck. Takes down its CPU time."""
    end = time.monotonic() + seconds
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            _cpu[process.pid] = usage.ru_utime + usage.ru_stime
            return
        if time.monotonic() > end:
            os.kill(process.pid, 9)
            end = float("inf")
        time.sleep(0.2)


def _dictionary(name: str, work: Path) -> list[str]:
    """The words that a Python target lists in TOKENS, as libFuzzer takes them."""
    tokens = [] if name in NATIVE else getattr(module(name), "TOKENS", [])
    if not tokens:
        return []
    path = work / f"{name}.dict"
    path.write_text("".join(f'"{_escaped(token)}"\n' for token in tokens))
    return [f"-dict={path}"]


def _escaped(token: str) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\x{b:02x}" for b in token.encode("latin-1"))


def module(name: str):  # type: ignore[no-untyped-def]
    """The module of a Python target."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))
    return importlib.import_module(f"fuzz_{name}")


def fuzz_all(names: Iterable[str], seconds: int, work: Path, seed: int, jobs: int) -> list[Run]:
    def start(name: str) -> Run | None:
        try:
            run = fuzz(name, seconds, work, seed)
        except Missing as reason:
            print(f"{name:10} skipped: {reason}", flush=True)
            return None
        print(run, flush=True)
        return run

    with ThreadPoolExecutor(jobs) as pool:
        return [run for run in pool.map(start, names) if run is not None]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", default=TARGETS, metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=3600, help="for each target (3600)")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="targets at a time")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "fuzz", help="inputs kept, logs, findings")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    unknown = set(asked.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    runs = fuzz_all(asked.targets, asked.seconds, work, asked.seed, asked.jobs)
    if asked.json:
        asked.json.write_text(json.dumps([asdict(run) | {"log": ""} for run in runs], indent=1))
    for run in runs:
        if run.finding is not None:
            print(f"\n{run.target}: {run.finding}\n{run.log[-4000:]}")
    return int(any(run.finding is not None for run in runs))


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
