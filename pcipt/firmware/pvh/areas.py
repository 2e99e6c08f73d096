"""Divide the address space into areas, computed from layers that may overlap.

A layer says how an access to a range is treated. Where several layers overlap, the layer with the highest
rank decides.
"""

import enum
import heapq
import itertools
from collections.abc import Iterable

from pcipt import values as attrs
from pcipt.pci import Address, Range


class Treatment(enum.Enum):
    """What happens when the hardware domain (dom0) accesses an address."""

    RAM = "ram"  # memory of the domain
    IDENTITY = "identity"  # mapped 1:1: the access reaches the same address of the machine
    TRAPPED = "trapped"  # Xen handles each access and asks the hardware
    EMULATED = "emulated"  # Xen emulates a device there
    WITHHELD = "withheld"  # the machine has something there that the domain does not get
    HOLE = "hole"


@attrs.frozen
class Layer:
    """How accesses to `range` are treated, unless a layer of higher `rank` covers the same addresses.

    `what` names the thing at these addresses, `why` is the reason for the treatment; both are text for a
    report.
    """

    rank: int
    range: Range
    treatment: Treatment
    what: str
    why: str


@attrs.frozen
class Area:
    """A range of the address space and what happens to it in dom0's map, after all rules.

    `what` and `why` are text for a report.
    """

    range: Range
    treatment: Treatment
    what: str
    why: str


def areas_from_layers(layers: Iterable[Layer]) -> tuple[Area, ...]:
    """Return the areas from address 0 to the highest address of any layer.

    At each address the layer with the highest rank decides. Of layers with the same rank, the one that begins
    first decides. Of these, the one that comes first in `layers` decides. Addresses without a layer become a
    HOLE.
    Shape:  sorted by address, without gaps. Adjacent areas that are equal except for their range are joined.
            Without layers the result is empty.
    """
    given = sorted(layers, key=lambda layer: layer.range.start)
    cuts = sorted({0} | {c.range.start for c in given} | {c.range.last + 1 for c in given})
    open_ones: list[tuple[int, int, int, Layer]] = []
    found: list[Area] = []
    arriving = 0
    for start, end in itertools.pairwise(cuts):
        while arriving < len(given) and given[arriving].range.start == start:
            layer = given[arriving]
            heapq.heappush(open_ones, (-layer.rank, arriving, layer.range.last + 1, layer))
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
