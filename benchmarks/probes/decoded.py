"""How many bytes must be decoded to restore each blob: probes/decoded.py STORE DIGEST… → a JSON list.

Every blob is read whole with a cache of its own, as a process that restores nothing else would."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import casstore
from casstore.digest import Digest


def main(root: Path, digests: list[str]) -> list[dict[str, object]]:
    found = []
    for text in digests:
        with casstore.open(root, create=False) as store:
            size = sum(len(buffer) for buffer in store.blobs.cat(Digest.parse(text)))
            found.append({"digest": text, "size": size, "decoded": store.volume.packs.decoded_bytes})
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])))
