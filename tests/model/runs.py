"""What is explored: the protocol as it stands, and with one rule taken away. See README.md for the words.

python tests/model/runs.py          the runs that CI makes
python tests/model/runs.py --full   those and the large ones (about half an hour)
python tests/model/runs.py WORDS    one run, with its trace
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent

#: Must end with OK: every interleaving, every crash, every expiry, and recovery from every state.
PROTOCOL = [
    # writers that know their digest and writers that do not, loose and packed, against the collector
    "start=empty writer:BX:loose pipe:BX:packed tagger",
    "start=empty writer:BX:packed:two pipe:BY:packed",
    "start=loose writer:BX:loose pipe:BX:loose tagger",
    "start=packed pipe:BY:packed tagger",
    "start=packed writer:BX:packed tagger cat fine",
    # packing: alone, twice, under readers
    "start=loose packer writer:BX:loose tagger",
    "start=loose packer reader tagger",
    "start=loose packer reader cat",
    "start=loose packer packer tagger",
    "start=loose packer packer:B:3 cat fine",
    # repacking of data packs: alone, twice, one after the other
    "start=packed repacker reader cat",
    "start=packed repacker cat tagger fine",
    "start=two repacker repacker cat",
    "start=two repacker repacker:1 cat",
    # metadata packs
    "start=two metarepacker tagger",
    "start=packed metarepacker reader tagger",
    "start=packed metarepacker metarepacker cat",
    "start=packed metarepacker repacker cat",
    "start=packed metarepacker pipe:BX:packed:2",
    # pins
    "start=loose put:B:loose pinner tagger",
    "start=empty put:B:packed pinner",
    "start=packed pinned repacker pinner tagger",
    # index
    "start=packed repacker merger cat",
    "start=packed merger rebuilder repacker limit=150000",
    "start=pair merger pipe:BX:packed cat",
    "start=half rebuilder pipe:CY:packed cat",
    # rot and healing
    "start=packed writer:BX:packed decay:P0 tagger",
    "start=packed pipe:BX:packed decay:P0M0 cat",
    "start=two repacker writer:BX:packed decay:P0",
    "start=packed metarepacker writer:BX:packed decay:M0",
    "start=loose packer pipe:BX:loose decay:L0",
    "start=packed rebuilder writer:BX:packed decay:S0",
    "start=packed writer:BX:packed pipe:BX:packed alarm:P0",
    # a catalog from a backup
    "start=packed backup tagger late writer:BX:packed",
    "start=packed rebuilder backup late cat rebuilder",
    "start=loose packer backup late writer:BX:loose",
    # and what check takes in then
    "start=loose takein backup tagger writer:BX:loose",
    "start=packed takein backup tagger late writer:BX:packed:3 cat",
    "start=packed takein repacker backup late reader",
    # all together, at random
    "start=two packer metarepacker repacker writer:CY:packed:3 cat tagger decay:P0M0 walks=1500",
    "start=loose packer packer metarepacker reader cat tagger pinner decay:L0P1 walks=1500",
    "start=packed merger rebuilder repacker pipe:BY:packed:3 cat tagger decay:S0P0 walks=1500",
    "start=two repacker metarepacker backup tagger late writer:BX:packed reader cat walks=1500",
]

#: Must end with VIOLATION. The fifteen rules of PROTOCOL.md (rule 14 is in HARMLESS), then what came after them.
BROKEN = [
    "without=expired_protects start=loose writer:BX:loose tagger",
    "without=expired_protects bytes start=loose reader tagger",
    "without=name_in_txn bytes start=packed pipe:BY:packed tagger",
    "without=tag_live start=loose tagger",
    "without=no_live_parent start=loose reader tagger",
    "without=revive_closure start=loose writer:BX:loose tagger",
    "without=drop_by_key bytes start=loose packer tagger",
    "without=repack_per_blob bytes start=packed repacker pipe:CY:packed tagger",
    "without=merge_multimap bytes start=packed repacker merger tagger",
    "without=merge_keeps_retired start=pair merger writer:BX:packed tagger",
    "without=merge_cas bytes start=half merger repacker pipe:CY:packed",
    "without=edge_packs_only bytes start=packed repacker reader tagger",
    "without=lease_folder bytes start=empty writer:BX:loose",
    "without=unlink_sync bytes start=loose tagger",
    "without=only_used_live without=retire_loose start=loose pipe:BX:loose",
    "without=stamp_in_commit bytes start=loose packer reader",
    # the same with the collector's last line of defence gone: then bytes are lost
    "without=tag_live without=purge_no_row bytes start=loose tagger",
    "without=no_live_parent without=purge_no_row bytes start=loose reader tagger",
    "without=revive_closure without=purge_no_row bytes start=loose writer:BX:loose tagger",
    "without=names without=age start=loose writer:BX:loose tagger",
    # the rest of the table
    "without=commit_fence start=loose writer:BX:loose tagger",
    "without=plan_rechecked start=loose tagger",
    "without=folder_first bytes start=empty writer:BX:loose",
    "without=put_row_first bytes start=empty writer:BX:loose",
    "without=put_sync bytes start=empty writer:BX:loose",
    "without=retire_loose start=loose pipe:BX:loose decay:L0",
    # pins
    "without=pin_live bytes start=loose pinner tagger",
    "without=pin_holds bytes start=loose pinned tagger",
    # metadata packs, and edges that say which chunks
    "without=meta_cas bytes start=packed metarepacker pipe:BX:packed:2 tagger",
    "without=meta_per_blob bytes start=two metarepacker writer:BX:packed tagger",
    "without=meta_revived start=packed writer:BX:packed tagger",
    "without=repack_current_uses bytes start=packed repacker pipe:BX:packed:3 tagger",
    # rot and healing
    "without=suspect_missing start=packed writer:BX:packed decay:P0",
    "without=suspect_at_commit start=packed writer:BX:packed decay:P0",
    "without=heal_in_commit start=packed pipe:BX:packed decay:P0",
    "without=repack_verifies start=packed repacker writer:BX:packed decay:P0",
    # index rebuild, epoch
    "without=rebuild_one_txn bytes start=half rebuilder pipe:CY:packed",
    "without=rebuild_keeps_retired start=packed rebuilder writer:BX:packed tagger",
    "without=rebuild_cas bytes start=half rebuilder pipe:CY:packed",
    "without=suspect_segment_stays start=packed rebuilder backup",
    "without=epoch_turns start=packed backup tagger late writer:BX:packed",
    "without=epoch_gc start=packed pipe:CY:packed backup tagger",
    "without=epoch_name start=packed backup tagger late writer:BX:packed",
    "without=check_before_epoch start=packed backup tagger late writer:BX:packed",
    # what check takes in
    "without=look_first start=packed takein backup tagger writer:BX:packed",
    "without=take_unknown start=packed takein backup tagger writer:BX:packed",
    "without=take_pending start=packed takein backup tagger writer:BX:packed",
    "without=take_killed start=packed takein backup tagger writer:BX:packed",
    "without=take_retired start=packed takein backup tagger writer:BX:packed",
    "without=take_names start=packed takein backup tagger writer:BX:packed",
]

#: Must end with OK although a rule is off: another mechanism covers for it.
HARMLESS = [
    "without=only_used_live start=loose pipe:BX:loose tagger",
    "without=only_used_live start=empty pipe:BX:packed pipe:BX:loose",
    "without=pack_cas start=loose packer writer:BX:loose",
    "without=pack_cas start=loose packer:B:3 packer",
    "without=names start=loose writer:BX:loose pipe:BX:packed tagger",
    "without=names start=empty writer:BX:loose:two tagger",
    "without=age start=loose writer:BX:loose pipe:BX:packed tagger",
    "without=age start=loose reader packer cat",
    "without=purge_no_row start=packed repacker reader",
    "without=tag_live bytes start=loose tagger",
    "without=no_live_parent bytes start=loose reader tagger",
    "without=revive_closure bytes start=loose writer:BX:loose tagger",
]

#: As PROTOCOL, but too large for CI.
LARGE = [
    "start=packed writer:BX:packed pipe:BY:packed tagger",
    "start=loose packer reader cat tagger",
    "start=dead packer packer tagger",
    "start=loose packer packer:B:3 tagger",
    "start=loose packer packer metarepacker",
    "start=two repacker repacker tagger",
    "start=two repacker repacker:1 tagger",
    "start=packed metarepacker metarepacker tagger",
    "start=packed metarepacker repacker tagger",
    "start=packed metarepacker writer:BX:packed tagger",
    "start=packed metarepacker pipe:BX:packed:2 tagger decay:M0",
    "start=loose packer metarepacker tagger pinner",
    "start=packed repacker merger tagger",
    "start=pair merger writer:BX:packed tagger",
    "start=half rebuilder pipe:CY:packed tagger",
    "start=packed rebuilder repacker tagger",
    "start=packed rebuilder merger tagger pinner",
    "start=packed rebuilder writer:BX:packed decay:S0 tagger",
    "start=loose packer pipe:BX:loose decay:L0 tagger",
    "start=two repacker writer:BX:packed decay:P0 tagger limit=10000000",
    "start=packed writer:BX:packed pipe:BX:packed:2 decay:P0M0 tagger",
    "start=packed pipe:CY:packed backup tagger",
    "start=packed merger repacker backup late rebuilder cat",
    "start=packed backup tagger late pipe:BX:packed reader cat",
    "start=packed rebuilder backup late reader cat rebuilder",
    "start=loose packer backup late writer:BX:loose reader",
    "start=two repacker metarepacker backup late writer:BX:packed cat limit=10000000",
    "start=packed takein backup tagger writer:BX:packed",
    "start=packed takein pipe:CY:packed backup tagger limit=10000000",
    "start=loose takein packer backup tagger",
    "start=loose takein backup tagger writer:BX:loose late pipe:BX:loose limit=10000000",
]
WALKS = [
    "start=two packer metarepacker repacker writer:CY:packed:3 cat tagger decay:P0M0",
    "start=loose packer packer metarepacker reader cat tagger pinner decay:L0P1M2",
    "start=two repacker repacker:1 metarepacker pipe:BX:packed:3 cat tagger pinner decay:P0M0P1M3",
    "start=two repacker repacker metarepacker writer:BX:packed:3 cat tagger alarm:P0",
    "start=packed merger rebuilder repacker pipe:BY:packed:3 cat tagger decay:S0P0",
    "start=packed metarepacker metarepacker writer:BX:packed:2 pipe:BX:loose:two tagger decay:M0M1",
    "start=dead packer packer:B:3 metarepacker repacker tagger pinner cat decay:L0P0",
    "start=loose packer pipe:CY:packed backup tagger late writer:BX:packed rebuilder cat",
    "start=two repacker metarepacker backup tagger late writer:BX:packed reader cat",
    "start=packed merger backup tagger late rebuilder merger reader cat",
]


def compiler() -> str | None:
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    """Compiles the model into `folder`; returns the program."""
    cc = compiler()
    if cc is None:
        raise FileNotFoundError("no C compiler")
    program = folder / "model"
    sources = sorted(str(path) for path in HERE.glob("*.c"))
    subprocess.run([cc, "-std=c11", "-O2", "-Wall", "-Wextra", "-o", str(program), *sources], check=True)
    return program


def run(program: Path, words: str) -> str:
    """One run; returns what it prints: OK, LIMIT or VIOLATION with figures, then the trace."""
    done = subprocess.run([str(program), *words.split()], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1, 3):
        raise RuntimeError(f"{words}: exit {done.returncode} {done.stderr}")
    return done.stdout


def main(arguments: list[str]) -> int:
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        if arguments and arguments != ["--full"]:
            print(run(program, " ".join(arguments)), end="")
            return 0
        plan = [("OK", PROTOCOL), ("VIOLATION", BROKEN), ("OK", HARMLESS)]
        if arguments:
            walks = [f"{words} walks=20000 seed={seed}" for words in WALKS for seed in (1, 2)]
            plan += [("OK", LARGE), ("OK", walks)]
        for expected, runs in plan:
            for words in runs:
                began = time.monotonic()
                first = run(program, words).splitlines()[0]
                good = first.startswith((expected, "LIMIT") if "limit=" in words else expected)
                failures += not good
                seconds = time.monotonic() - began
                print(f"{'' if good else 'UNEXPECTED '}{first} | {words} | {seconds:.1f} s", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
