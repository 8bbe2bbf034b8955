"""`check`: a look at everything; with `repair` what was found is mended, and everything looked at once more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..model import Progress
from ..store.leases import Lease
from ..store.volume import Volume
from .findings import CheckReport as CheckReport
from .findings import Finding as Finding
from .look import Look
from .mend import Mend, summary


def check(
    volume: Volume,
    *,
    read_data: bool = False,
    repair: bool = False,
    codec: str = "zstd:3",
    stop: Callable[[], None] = lambda: None,
    progress: Progress | None = None,
) -> CheckReport:
    """Look at every object and every blob; with `read_data` at every byte; with `repair` mend what can be.

    After a repair the report tells what was found before it, `repaired` where it is no longer so, and what is left.
    """

    def look(lease: Lease) -> Look:
        return Look(volume, lease, read_data=read_data, stop=stop, progress=progress)

    with Lease(volume.catalog, volume.objects, "check", reading=not repair) as lease:
        seen = look(lease).run()
        if not repair or not (seen.report.findings or seen.lost or seen.unknown):
            return seen.report
        built = Mend(volume, lease, codec, stop, progress).run(seen)
    with Lease(volume.catalog, volume.objects, "check") as lease:
        after = look(lease).run().report
    left = {one.what for one in after.findings if one.severity == "error"}
    before = {one.what for one in seen.report.findings}
    told = summary(built, seen.lost)
    findings = [one if one.what in left else replace(one, repaired=True) for one in seen.report.findings]
    findings += built.findings
    findings += [one for one in after.findings if one.what not in before]
    if told is not None:
        findings.append(told)
    after.findings[:] = findings
    return after
