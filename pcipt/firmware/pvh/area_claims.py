"""What may be said of a range of the address space, and how one saying paints over another."""

import enum
import heapq
import itertools
from collections.abc import Iterable

import attrs

from pcipt.pci import Address, Range


class Treatment(enum.Enum):
    """What an access of the hardware domain meets there."""

    RAM = "ram"  # memory of the domain
    IDENTITY = "identity"  # mapped: the same address of the machine
    TRAPPED = "trapped"  # Xen handles each access and asks the hardware
    EMULATED = "emulated"  # a device that Xen plays itself
    WITHHELD = "withheld"  # the machine has something there, the domain is not given it
    HOLE = "hole"


@attrs.frozen
class Claim:
    """`rank` decides between claims on one place: the higher one is seen."""

    rank: int
    range: Range
    treatment: Treatment
    what: str
    why: str


@attrs.frozen
class Area:
    """A piece of the address space as it is in the end."""

    range: Range
    treatment: Treatment
    what: str
    why: str


def paint(claims: Iterable[Claim]) -> tuple[Area, ...]:
    """Give the areas in address order without a gap: what nobody claims is a hole, up to the last claim.

    Neighbours that are pieces of one claim, or of claims that say the same, are one area.
    """
    given = sorted(claims, key=lambda claim: claim.range.start)
    cuts = sorted({0} | {c.range.start for c in given} | {c.range.last + 1 for c in given})
    open_ones: list[tuple[int, int, int, Claim]] = []
    found: list[Area] = []
    arriving = 0
    for start, end in itertools.pairwise(cuts):
        while arriving < len(given) and given[arriving].range.start == start:
            claim = given[arriving]
            heapq.heappush(open_ones, (-claim.rank, arriving, claim.range.last + 1, claim))
            arriving += 1
        while open_ones and open_ones[0][2] <= start:
            heapq.heappop(open_ones)
        top = open_ones[0][3] if open_ones else None
        span = Range(Address(start), end - start)
        if top is None:
            area = Area(span, Treatment.HOLE, "nothing", "reads give all ones, writes are lost")
        else:
            area = Area(span, top.treatment, top.what, top.why)
        before = found[-1] if found else None
        if before is not None and attrs.evolve(before, range=span) == area:
            joined = Range(before.range.start, before.range.size + span.size)
            found[-1] = attrs.evolve(before, range=joined)
        else:
            found.append(area)
    return tuple(found)
