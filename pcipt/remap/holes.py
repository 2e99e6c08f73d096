"""Holes: pages that pcipt unmapped for good, and that Xen may have mapped again for dom0. Pure.

With Xen's option dom0=pf-fixup an access by a processor of dom0 maps a hole again, and Xen tells nobody. So
the pages are unmapped a second time, at a slow pace: EINVAL shows that a page was still a hole, success that
it had come back. Each call for a hole prints a line on Xen's console. So at most SAMPLE pages of a hole are
looked at one by one, and a hole that has held CHECKS times is forgotten.
Source: Xen arch/x86/hvm/emulate.c (hwdom_fixup_p2m), common/domctl.c (XEN_DOMCTL_memory_mapping).
"""

from collections.abc import Iterable, Iterator

import attrs

from pcipt.pci import Finding, Frames, Gfn, Sbdf
from pcipt.remap.actions import CheckUnmapped, UnmapMmio, WithdrawReserved
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.desired import Desired
from pcipt.remap.ledger import Ledger
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedPages

CHECKS = 3
SAMPLE = 16


@attrs.frozen
class Hole:
    """Pages that were unmapped. `region` is True for a reserved region, False for pages of a BAR.

    `checks` is how often it was looked at. `returned` is how many pages the last check that found some had
    found mapped again, 0 if the last check found all to be holes.
    """

    sbdf: Sbdf
    frames: Frames
    region: bool
    checks: int = 0
    returned: int = 0

    @property
    def wants_check(self) -> bool:
        """Return True if it must be looked at again: a page came back the last time, or it is new."""
        return bool(self.returned) or self.checks < CHECKS


class Holes:
    """All holes of one boot, by function and first page. Methods change it in place.

    `returned` is the number of pages that were found mapped again since the start.
    """

    def __init__(self) -> None:
        self._of: dict[Sbdf, dict[Frames, Hole]] = {}
        self.returned = 0

    def __eq__(self, other: object) -> bool:
        """Return True if the holes are equal, and as many pages were found mapped again."""
        return isinstance(other, Holes) and (self._of, self.returned) == (other._of, other.returned)

    __hash__ = None  # type: ignore[assignment]  # it changes in place

    def copy(self) -> "Holes":
        """Return holes with the same content. Changes of the copy do not change these holes."""
        found = Holes()
        found._of = {sbdf: dict(held) for sbdf, held in self._of.items()}
        found.returned = self.returned
        return found

    def __len__(self) -> int:
        """Return the number of holes."""
        return sum(map(len, self._of.values()))

    def __iter__(self) -> Iterator[Hole]:
        """Yield all holes, by function, and those of one function in the order in which they were made."""
        for sbdf in sorted(self._of):
            yield from self.of(sbdf)

    @property
    def functions(self) -> set[Sbdf]:
        """Return the functions that have holes."""
        return set(self._of)

    def of(self, sbdf: Sbdf) -> list[Hole]:
        """Return the holes of one function."""
        return list(self._of.get(sbdf, {}).values())

    def holds(self, action: CheckUnmapped) -> bool:
        """Return True if exactly these pages are a hole of the action's function."""
        hole = self._of.get(action.sbdf, {}).get(action.frames)
        return hole is not None and hole.region is action.region

    def made(self, action: UnmapMmio | WithdrawReserved) -> None:
        """Record that an action has unmapped its pages."""
        self.filled(action.frames)
        self._put(Hole(action.sbdf, action.frames, isinstance(action, WithdrawReserved)))

    def checked(self, action: CheckUnmapped, returned: int) -> None:
        """Record what a check has found: the number of pages that had come back. Nothing without a hole."""
        hole = self._of.get(action.sbdf, {}).get(action.frames)
        self.returned += returned
        if hole is not None:
            self._put(attrs.evolve(hole, checks=hole.checks + 1, returned=returned))

    def filled(self, frames: Frames) -> None:
        """Forget all holes that share pages with `frames`: somebody needs these pages again."""
        for hole in [hole for hole in self if hole.frames.overlaps(frames)]:
            self._drop(hole)

    def needed(self, desired: Iterable[Desired]) -> None:
        """Forget all holes that share pages with the desired pages of some functions."""
        for frames in (
            [span for each in desired for bar in each.bars for span in bar.spans] if self._of else []
        ):
            self.filled(frames)

    def tidy(self, sbdf: Sbdf, mapped: MappedPages, bars: BarIndex) -> None:
        """Forget the holes of a function that need no further check, or whose pages are recorded as mapped
        or have a BAR again.
        """
        for hole in self.of(sbdf):
            used = any(True for _ in mapped.over(hole.frames)) or any(True for _ in bars.over(hole.frames))
            if used or not hole.wants_check:
                self._drop(hole)

    def _put(self, hole: Hole) -> None:
        self._of.setdefault(hole.sbdf, {})[hole.frames] = hole

    def _drop(self, hole: Hole) -> None:
        del self._of[hole.sbdf][hole.frames]
        if not self._of[hole.sbdf]:
            del self._of[hole.sbdf]


def holes_from(ledger: Ledger) -> Holes:
    """Return the holes that a ledger tells of, for the start of the service: the withdrawn regions.

    Unmapped pages of BARs are not in the ledger.
    """
    found = Holes()
    for entry in ledger.entries:
        if entry.word == WithdrawReserved.word and entry.state is State.HELD and entry.frames is not None:
            found.made(WithdrawReserved(entry.sbdf, entry.reason, entry.frames))
    return found


def plan_checks(functions: Iterable[Sbdf], holes: Holes) -> list[CheckUnmapped]:
    """Return a check of each hole of these functions that must be looked at again, in a fixed order."""
    return [
        CheckUnmapped(
            hole.sbdf, ("Xen maps unmapped pages again when dom0 accesses them"), hole.frames, hole.region
        )
        for sbdf in sorted(functions)
        for hole in holes.of(sbdf)
        if hole.wants_check
    ]


def finding_of_hole(hole: Hole) -> Finding | None:
    """Return the finding that unmapped pages had come back at the last check, None if they had not."""
    if not hole.returned:
        return None
    what = "the withdrawn reserved region" if hole.region else "the unmapped memory"
    return Finding(
        "unmap-undone",
        f"{what} {hole.frames} was mapped again: dom0 accessed it, and Xen maps what dom0 accesses "
        "(pf-fixup). pcipt has unmapped it once more, but this can happen again; find out which program or "
        "driver of dom0 uses it, or boot Xen with dom0=no-pf-fixup",
    )


def sample_of(frames: Frames) -> list[Frames]:
    """Return the pages of a hole that a check looks at: all, or SAMPLE of them, spread over all from the
    first.
    """
    count = min(frames.count, SAMPLE)
    return [Frames(Gfn(frames.start + number * frames.count // count), 1) for number in range(count)]
