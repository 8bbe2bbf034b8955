"""Where the upload of a large blob goes on, noted in the store for the run after one that was killed."""

from __future__ import annotations

import contextlib
import json

from ..errors import CasstoreError
from ..model import BlobInfo
from ..store.transfers import Note
from ..store.volume import Volume

LEAST = 8 << 20
"""A smaller blob is sent again as fast as it is found out how much of it came."""


class UploadNote:
    """For one blob on its way to one repository, while we hold it. Where another push is at the same, or the store is
    read-only, or has no room, there is none: then the next run begins anew, that is all. The address that a registry
    gave may let whoever has it write there, so nobody else may read the file."""

    def __init__(self, volume: Volume, domain: str, path: str, info: BlobInfo) -> None:
        self._note: Note | None = None
        if info.size >= LEAST:
            self._note = volume.transfers.note(f"{domain}/{path}@{info.digest}")
        self.location = self._read()

    def _read(self) -> str:
        if self._note is None:
            return ""
        try:
            value = json.loads(self._note.read() or b"{}")
        except (CasstoreError, ValueError, RecursionError):
            return ""
        location = value.get("location") if isinstance(value, dict) else None
        return location if isinstance(location, str) else ""

    def write(self, location: str) -> None:
        """The upload goes on there."""
        if self._note is not None:
            with contextlib.suppress(CasstoreError):
                self._note.write(json.dumps({"location": location}).encode())

    def drop(self) -> None:
        """The registry has the blob."""
        if self._note is not None:
            self._note.drop()

    def __enter__(self) -> UploadNote:
        return self

    def __exit__(self, *_: object) -> None:
        if self._note is not None:
            self._note.close()
