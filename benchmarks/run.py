"""Times casstore's commands beside the installed peers and holds the results against the bars.

    python benchmarks/run.py --corpus DIR --work DIR [--rounds N] [--only NAMES] [--json FILE]

DIR is a corpus: apps.tar and bases.tar (docker save), raw/*.tar (their layers), layers/*.tar.gz (the same as a registry
holds them). Commands alternate (A B A B) and ratios are of the same round; absolute seconds on a shared machine are
noise. Exit 1 only where something could not be measured: a bar that is not met is a line in the table.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from runner import compressed, files, remote, scale, space, speed
from runner.bench import Bench, names_of
from runner.process import Failed, run
from runner.programs import Casstore, peers
from runner.report import Report

JOBS = {
    "load": speed.load,
    "again": speed.again,
    "save": speed.save,
    "layer": speed.layer,
    "export": files.export,
    "unpack": files.unpack,
    "cat": files.cat,
    "store": space.store,
    "images": scale.images,
    "gc": scale.gc,
    "gzip": compressed.encoders,
    "mirror": compressed.mirror,
    "pull": remote.pull,
    "push": remote.push,
    "sync": remote.sync,
    "many": remote.many,
}
BESIDE_PEERS = {"load", "again", "save", "store", "export"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with apps.tar, bases.tar, raw/, layers/")
    parser.add_argument("--work", type=Path, required=True, help="folder to work in; 10 GB, on the disk to be measured")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--only", default=",".join(JOBS), metavar="NAMES", help=f"of {','.join(JOBS)}")
    parser.add_argument("--layers", type=int, default=100_000, help="layers of gc's synthetic store")
    parser.add_argument("--every", type=int, default=3, metavar="N", help="each N-th layer is packed by every encoder")
    parser.add_argument("--encoders", default="", metavar="NAMES", help="only those whose names begin so (gzip,Go)")
    parser.add_argument("--layouts", type=Path, metavar="DIR", help="OCI layouts whose gzip layers are taken apart too")
    parser.add_argument("--without", default="", metavar="NAMES", help="peers to leave out")
    given = parser.parse_args()
    given.only = [name for name in given.only.split(",") if name]
    unknown = sorted(set(given.only) - set(JOBS))
    if unknown or given.rounds < 1:
        parser.error(f"unknown jobs: {', '.join(unknown)}" if unknown else "at least one round")
    return given


def compiled() -> None:
    """A store on the pure-Python twins is not what is to be measured; nor is one whose modules Python compiles anew at
    each start, which it does not with an installed package."""
    code = "import casstore, compileall; compileall.compile_dir(casstore.__path__[0], quiet=2)"
    run([sys.executable, "-c", code])
    named = ("tarscan", "cut", "hashing", "table", "spans", "deflate")
    code = f"import importlib as i; print(*(i.import_module('casstore.kernels.' + n).IMPLEMENTATION for n in {named}))"
    found = run([sys.executable, "-c", code], keep=True).out.split()
    slow = [name for name, kind in zip(named, found, strict=True) if kind != "compiled"]
    if slow:
        raise Failed(f"not compiled: {', '.join(slow)}; make build")


def main() -> int:
    given = arguments()
    # Ended from outside, the peers' daemons are still to be ended by us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    report = Report(given.rounds)
    casstore = Casstore(work / "store")
    others = []
    failed = False
    try:
        compiled()
        if BESIDE_PEERS.intersection(given.only):
            archives = [given.corpus / name for name in ("apps.tar", "bases.tar")]
            names = {path.name: names_of(path) for path in archives}
            others, notes = peers(work, names, set(given.without.split(",")))
            for text in notes:
                report.note(text)
        report.versions += [one.version() for one in (casstore, *others)]
        chosen = [name for name in given.encoders.split(",") if name]
        choices = (given.rounds, given.layers, given.every, chosen, given.layouts)
        bench = Bench(given.corpus.resolve(), work, *choices, casstore, others, report)
        for name in given.only:
            try:
                JOBS[name](bench)
            except Failed as error:
                failed = True
                report.add(name, "", f"FAILED: {error}", False)
    except Failed as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    finally:
        for one in (casstore, *others):
            one.close()
    print(report.text())
    if given.json is not None:
        given.json.write_text(report.json() + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
