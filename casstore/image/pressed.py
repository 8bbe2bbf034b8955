"""Images as they are pushed: plain layers compressed, and manifests and indexes that say so.

The compressed form of a layer is kept for the next push: under gzip as a recipe of the layer's own chunks, under zstd
as it is. The manifest of the image has an edge to it, so that it lives as long. The manifests that are pushed are made
anew each time, of the same documents the same bytes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..digest import Digest
from ..errors import BadInput, CasstoreError, Damaged
from ..flow.folded import Folder, folded
from ..flow.ingest import INLINE
from ..flow.proof import doubt
from ..flow.restore import BlobReader
from ..flow.source import Buffers, BytesSource, StreamSource
from ..model import BlobInfo, Buffer, NewBlob, Progress
from ..oci import manifest as oci_manifest
from ..oci import media
from ..oci.document import MAX_DOCUMENT, encode, strict_json
from ..oci.manifest import Index, Manifest
from ..store import names, protocol, query
from ..store.leases import Lease
from ..store.volume import Volume
from .crew import Crew

COMPRESSIONS = ("gzip", "zstd", "none")
"""What plain layers may become: none leaves them as they are."""
Writing = Callable[[], dict[str, Any]]
"""What Ingest is to know, asked for once there is something to be made."""
_ABOUT = "vnd.docker.reference.digest"
"""What BuildKit's attestations are about, by an annotation in the index."""


class Press:
    """What compresses the layers of one push. `infos`: the blobs that the lease keeps; it gets what is made."""

    def __init__(
        self,
        volume: Volume,
        lease: Lease,
        infos: dict[Digest, BlobInfo],
        compression: str,
        writing: Writing,
        progress: Progress | None,
    ) -> None:
        self._volume = volume
        self._lease = lease
        self._infos = infos
        self._compression = compression
        self._writing = writing
        self._progress = progress
        self._crew = Crew(len(os.sched_getaffinity(0)))

    def run(self, documents: Sequence[Manifest | Index]) -> dict[Digest, Manifest | Index]:
        """Manifests and indexes, each after what it lists, as they are to be pushed, by their own digests."""
        made: dict[Digest, Manifest | Index] = {one.digest: one for one in documents}
        images = [one for one in documents if isinstance(one, Manifest) and self._plain(one)]
        if not images:
            return made
        wanted = dict.fromkeys(digest for one in images for digest in self._plain(one))
        forms = self._forms({digest: self._infos[digest] for digest in wanted})
        self._keep([(one, [forms[digest].digest for digest in self._plain(one)]) for one in images])
        for one in documents:
            if isinstance(one, Index):
                made[one.digest] = pressed_index(one, made)
            elif one in images:
                made[one.digest] = pressed_manifest(one, forms)
        return made

    def _plain(self, manifest: Manifest) -> list[Digest]:
        """The layers of an image that are plain tars."""
        return [
            one.digest
            for one in (manifest.layers if manifest.is_image else ())
            if media.layer_encoding(one.media_type) == "identity"
            and media.is_distributable(one.media_type)
            and (info := self._infos.get(one.digest)) is not None
            and info.encoding == "identity"
            and info.digest.algorithm == "sha256"
        ]

    # -- the compressed forms

    def _forms(self, wanted: Mapping[Digest, BlobInfo]) -> dict[Digest, BlobInfo]:
        """Of each layer: found, or made and committed. Our lease keeps it."""
        found = self._found(wanted)
        missing = [info for digest, info in wanted.items() if digest not in found]
        if missing:
            if self._lease.id == protocol.NO_LEASE:
                raise CasstoreError(
                    "a plain layer is compressed for a push, which a read-only store cannot keep",
                    what=str(missing[0].digest),
                    hint="--compression none",
                )
            found |= self._make(missing)
        opened = protocol.read_open(self._volume.catalog, self._lease.id, found.values()).blobs
        for digest, form in found.items():
            if form not in opened:
                raise Damaged("the compressed form of a layer is not in the store", what=str(digest))
        self._infos.update(opened)
        return {digest: opened[form] for digest, form in found.items()}

    def _found(self, wanted: Iterable[Digest]) -> dict[Digest, Digest]:
        """Layer → its form, of those that have one."""
        with self._volume.catalog.read() as tx:
            candidates = {digest: query.find_diffid(tx, digest) for digest in wanted}
        forms: dict[Digest, Digest] = {}
        for digest, infos in candidates.items():
            found = next((info for info in infos if self._does(info)), None)
            if found is not None:
                forms[digest] = found.digest
        if self._lease.id == protocol.NO_LEASE:
            return forms
        present = protocol.name_blobs(self._volume.catalog, self._lease.id, forms.values())
        return {digest: form for digest, form in forms.items() if form in present}

    def _does(self, info: BlobInfo) -> bool:
        """Of gzip only what our engine makes: the digest is to be the same wherever the layer is pushed from."""
        if info.encoding != self._compression:
            return False
        try:
            return info.encoding != "gzip" or folded(self._volume, info)
        except CasstoreError:
            return False  # rotten, or gone meanwhile

    def _make(self, plain: Sequence[BlobInfo]) -> dict[Digest, Digest]:
        """Compress them, prove that they come back, commit."""
        slow: list[BlobInfo] = []
        with self._folder() as folder:
            largest = sorted(plain, key=lambda info: -info.size)
            made = self._crew.each(lambda info: self._press(folder, info), largest)
            written = folder.finish()
            blobs: list[NewBlob] = []
            layers = {form: info for info, form in zip(largest, made, strict=True)}
            for blob in written.blobs:
                if blob.place.state == "packed" and doubt(self._volume, blob, progress=self._progress, soon=True):
                    slow.append(layers[blob.digest])
                else:
                    blobs.append(blob)
            self._lease.check()
            protocol.commit(self._volume.catalog, self._lease.id, blobs, objects=written.objects)
        if slow:
            # What takes too long to be made again is kept as bytes, as gc does with any such layer.
            with self._folder() as folder:
                for info in slow:
                    folder.press(self._content(info), self._compression, what=_what(info))
                self._commit(folder)
        return {info.digest: form for info, form in zip(largest, made, strict=True)}

    @contextlib.contextmanager
    def _folder(self) -> Iterator[Folder]:
        folder = Folder(self._volume, self._lease.id, **{"progress": self._progress, **self._writing()})
        try:
            yield folder
        finally:
            folder.close()

    def _commit(self, folder: Folder) -> None:
        written = folder.finish()
        self._lease.check()
        protocol.commit(self._volume.catalog, self._lease.id, written.blobs, objects=written.objects)

    def _press(self, folder: Folder, info: BlobInfo) -> Digest:
        if self._compression == "gzip":
            return folder.fold(StreamSource(Buffers(self._content(info)), info.size), what=_what(info)).digest
        return folder.press(self._content(info), self._compression, what=_what(info)).digest

    def _content(self, info: BlobInfo) -> Iterator[Buffer]:
        for piece in BlobReader(self._volume, info).read():
            self._crew.check()
            yield piece

    def _keep(self, images: Sequence[tuple[Manifest, Sequence[Digest]]]) -> None:
        """An edge from each manifest to the forms of its layers."""
        if self._lease.id == protocol.NO_LEASE:
            return
        with self._volume.catalog.read() as tx:
            edges = {one.digest: names.children(tx, one.digest) for one, _ in images}
        lacking = [(one, forms) for one, forms in images if not set(forms) <= set(edges[one.digest])]
        if not lacking:
            return
        with self._folder() as folder:
            for one, forms in lacking:
                children = tuple(dict.fromkeys((*edges[one.digest], *forms)))
                if len(one.raw) <= INLINE and one.digest.algorithm == "sha256":
                    folder.take_small(one.raw, one.media_type, children)
                else:
                    source = BytesSource(one.raw)
                    folder.take(source, expect=one.digest, media_type=one.media_type, children=children)
            self._commit(folder)


def _what(info: BlobInfo) -> str:
    return f"compress {info.digest.hex[:12]}"


def pressed_manifest(document: Manifest, forms: Mapping[Digest, BlobInfo]) -> Manifest:
    """A manifest with the forms of its layers. docker's types know no zstd: they become OCI's then."""
    what = str(document.digest)
    value = strict_json(document.raw, MAX_DOCUMENT, what)
    encodings = set()
    for entry in value["layers"]:
        form = forms.get(Digest.parse(entry["digest"]))
        if form is not None:
            entry["mediaType"] += ("." if entry["mediaType"] == media.DOCKER_LAYER else "+") + form.encoding
            entry["digest"], entry["size"] = str(form.digest), form.size
            encodings.add(form.encoding)
    kind = document.media_type
    if "zstd" in encodings:
        for entry in (value["config"], *value["layers"]):
            entry["mediaType"] = media.to_oci(entry["mediaType"])
        kind = value["mediaType"] = media.OCI_MANIFEST
    made = oci_manifest.parse(encode(value), what, kind)
    if not isinstance(made, Manifest):
        raise BadInput("a manifest that is an index", what=what)
    return made


def pressed_index(document: Index, made: Mapping[Digest, Manifest | Index]) -> Index:
    """An index of what its manifests have become; what is about one of them is about the new one."""
    what = str(document.digest)
    changed = {str(old): new for old, new in made.items() if new.digest != old}
    value = strict_json(document.raw, MAX_DOCUMENT, what)
    kind = document.media_type
    if all(entry["digest"] not in changed for entry in value["manifests"]):
        return document
    for entry in value["manifests"]:
        new = changed.get(entry["digest"])
        if new is not None:
            if entry.get("mediaType") in media.MANIFESTS and entry["mediaType"] != new.media_type:
                kind = value["mediaType"] = media.OCI_INDEX
            entry["mediaType"], entry["digest"], entry["size"] = new.media_type, str(new.digest), len(new.raw)
        about = changed.get((entry.get("annotations") or {}).get(_ABOUT, ""))
        if about is not None:
            entry["annotations"][_ABOUT] = str(about.digest)
    found = oci_manifest.parse(encode(value), what, kind)
    if not isinstance(found, Index):
        raise BadInput("an index that is a manifest", what=what)
    return found
