"""Plain layers as they are pushed: compressed, and kept as a recipe of the same chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..codec.fold import Fold, gzip_of, is_folded, zstd_of
from ..digest import Digest
from ..errors import CasstoreError, Damaged
from ..format import recipe as recipe_format
from ..format import trace as trace_format
from ..kernels import hashing
from ..model import BlobInfo, Buffer
from ..store.volume import Volume
from .ingest import Ingest
from .records import Pending, Taken
from .source import Buffers, Source, StreamSource
from .step import Counted, Step

_PRESSES: dict[str, Callable[[Iterable[Buffer]], Iterable[Buffer]]] = {"gzip": gzip_of, "zstd": zstd_of}
COMPRESSIONS = tuple(_PRESSES)


class _Folding:
    """A source that is compressed while it is read. `made`, `digest`: bytes of what is made of it, and its digest."""

    def __init__(self, source: Source, fold: Fold) -> None:
        self.size: int | None = source.size
        self._source = source
        self._fold = fold
        self._sha256 = hashing.Sha256()
        self.made = 0

    def readinto(self, view: memoryview) -> int:
        got = self._source.readinto(view)
        if got or self._fold.trace is None:
            for piece in self._fold.add(view[:got]) if got else self._fold.end():
                self._sha256.update(piece)
                self.made += len(piece)
        return got

    @property
    def digest(self) -> Digest:
        return Digest.sha256(self._sha256.digest())


class Folder(Ingest):
    """An Ingest that takes plain layers in their compressed form."""

    def fold(self, source: Source, *, media_type: str = "", what: str = "blob") -> Taken:
        """Take the gzip blob that our engine makes of a source, by its recipe: of the same chunks, and a trace without
        corrections. As with `take_recipe` nothing has replayed it yet. Thread-safe."""
        try:
            fold = Fold()
        except LookupError as error:
            raise CasstoreError(f"cannot make gzip: {error}", what=what, hint="--compression zstd, or none") from None
        step = Step(self._progress, what, source.size)
        folding = _Folding(Counted(source, step), fold)
        split, own = self.split(folding)
        step.done()
        if fold.trace is None:
            raise Damaged("the content was not read to its end", what=what)
        trace = trace_format.encode(fold.trace)
        digest, size = folding.digest, folding.made
        self.take_recipe(Pending(digest, size, split, "gzip", trace, own, media_type, ()))
        return Taken(digest, size, "gzip", Digest.sha256(split.digest), split.size, split.files_size)

    def press(self, content: Iterable[Buffer], compression: str, *, media_type: str = "", what: str = "blob") -> Taken:
        """Take what a compression makes of content, as it is."""
        made = StreamSource(Buffers(_PRESSES[compression](content)))
        return self.take(made, media_type=media_type, what=what)


def folded(volume: Volume, info: BlobInfo) -> bool:
    """Is a blob what `Folder.fold` makes of its content? Only of what is packed this can be told."""
    if info.encoding != "gzip" or info.place.state != "packed":
        return False
    recipe = recipe_format.decode(volume.packs.record(info.digest, info.place), f"recipe of {info.digest}")
    return is_folded(trace_format.decode(recipe.trace, f"trace of {info.digest}"))
