"""Model what an access of dom0's processors to a hole of its p2m does (the option dom0=pf-fixup).

Accesses of devices do nothing: they do not pass through Xen. A release build prints nothing.
Source: Xen arch/x86/hvm/emulate.c (hvmemul_do_io, hwdom_fixup_p2m), arch/x86/mm.c (is_memory_hole).
"""

from collections.abc import Callable, Collection, Iterable

from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.xen.pf_fixup import PfFixup
from pcipt.xen.simulated.p2m import Extents, P2m


class Fixup:
    """The fixup of one Xen.

    `firmware` are the entries of the firmware's memory map. `trapped` returns the functions whose MSI-X
    structures Xen traps in some frames: such an access is answered before the fixup.
    """

    def __init__(
        self,
        how: PfFixup,
        p2m: P2m,
        firmware: Iterable[Frames],
        trapped: Callable[[Frames], Collection[Sbdf]],
    ) -> None:
        self._how = how
        self._p2m = p2m
        self._firmware = Extents(firmware)
        self._trapped = trapped

    def access(self, frames: Frames) -> int:
        """Access each page once; return how many holes were mapped.

        Pages that are mapped, trapped, RAM, or that dom0 may not access do not change. A release that does
        not map reserved memory leaves each page that an entry of the firmware's memory map touches.
        """
        if not self._how.on:
            return 0
        mapped = 0
        for number in range(frames.start, frames.end):
            page = Frames(Gfn(number), 1)
            if self._p2m.mapped(page) or self._p2m.is_memory(page) or self._p2m.is_trapped(page):
                continue
            if self._trapped(page) or (not self._how.reserved and self._firmware.overlap(page)):
                continue
            mapped += self._p2m.map_as_xen(page) == 0
        return mapped
