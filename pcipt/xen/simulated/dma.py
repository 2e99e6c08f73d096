"""Model memory accesses of devices (DMA): what the IOMMU refuses, and what Xen then prints and does.

Xen's clock is `seconds`, which a test moves. Not modelled: memory of guests, so that a device of a guest
reaches its own reserved regions only; the event of AMD-Vi for a device without an entry; refused interrupts.
Source: Xen drivers/passthrough/vtd/iommu.c (iommu_page_fault_do_one), amd/iommu_init.c
        (parse_event_log_entry), pci.c (pci_check_disable_device; PT_FAULT_THRESHOLD), x86/iommu.c
        (arch_iommu_hwdom_init), drivers/char/console.c (printk_prefix_check, __printk_ratelimit; thresholds
        of a release build), 4.17 to 4.22.
"""

from collections.abc import Callable, Iterable

from pcipt.pci import Frames, Gfn, Sbdf
from pcipt.pci.config import COMMAND, COMMAND_MASTER
from pcipt.pci.requester import Vendor
from pcipt.pci.units import PAGE_SIZE
from pcipt.xen.command_line import value_in
from pcipt.xen.interface import OwnerKind
from pcipt.xen.simulated.contexts import Contexts
from pcipt.xen.simulated.model import DOM0, DeviceList, Hardware
from pcipt.xen.simulated.p2m import P2m
from pcipt.xen.simulated.reserved import ReservedMemory
from pcipt.xen.simulated.vpci_state import ConfigHardware

BURST, REFILL_MS = 10, 5000  # messages at once; milliseconds until one more is printed
THRESHOLD, FORGIVEN_S = 10, 0.010  # faults until bus mastering goes off; a longer pause halves their number
_LEVELS = {"none": 0, "error": 1, "warning": 2, "info": 3, "debug": 4, "all": 4}
_WARNING = 1


class DirectAccess:
    """The accesses of devices to memory, in a Xen with these models. `line` is Xen's command line.

    `p2m` is None on a PV dom0: its IOMMU table has `always`, dom0's RAM and the reserved memory of the map.
    """

    def __init__(
        self, devices: DeviceList, contexts: Contexts, reserved: ReservedMemory, p2m: P2m | None,
        hardware: Hardware, always: Iterable[Frames], line: str, says: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.seconds = 0.0
        self._list, self._contexts, self._reserved = devices, contexts, reserved
        self._p2m, self._hardware, self._always, self._says = p2m, hardware, tuple(always), says
        words = (value_in(line, "guest_loglvl") or "none/warning").split("/")
        self._lower = _LEVELS[words[0]]
        self._upper = max(self._lower, _LEVELS[words[-1]])
        self._tokens, self._last_ms, self._missed = BURST * REFILL_MS, 0, 0
        self._faults: dict[Sbdf, tuple[int, float]] = {}  # count, time of the last one

    def access(self, function: Sbdf, address: int, *, write: bool) -> bool:
        """Let a device access memory at an address; return True if the access passes.

        A device whose bus mastering is off accesses nothing, and Xen prints nothing.
        """
        if not self._command(function) & COMMAND_MASTER:
            return False
        entry = self._contexts.passes(function, (function,))
        if entry and self._maps(function, Frames(Gfn(address // PAGE_SIZE), 1)):
            return True
        if self._reserved.vendor is Vendor.INTEL:
            reason = (5 if write else 6) if entry else 2
            self._print_warning(
                f"[VT-D]DMAR:[DMA {'Write' if write else 'Read'}] Request device [{function}] "
                f"fault addr {address & -PAGE_SIZE:x}"
            )
            self._print_warning(f"[VT-D]DMAR: reason {reason:02x} - as the specification names it")
        elif entry:
            owner = self._list.devices[function].owner
            number = owner.domain if owner.kind is OwnerKind.DOMAIN else 0x7FF2
            flags = " flags 0x20 RW" if write else " flags 0"
            self._says(f"AMD-Vi: IO_PAGE_FAULT: {function} d{number} addr {address:016x}{flags}")
        self._count(function)
        return False

    def _maps(self, function: Sbdf, page: Frames) -> bool:
        """Return True if the IOMMU's table of the device has the page."""
        own = any(function in region.scope for region in self._reserved.touching(page))
        if function not in self._list.devices or self._list.devices[function].owner != DOM0:
            return own  # a table of its own (quarantine), or the guest's
        if self._p2m is not None:
            return self._p2m.is_memory(page) or self._p2m.mapped(page)
        return any(span.overlaps(page) for span in (*self._always, *self._reserved.mapped))

    def _print_warning(self, text: str) -> None:
        """Print a message with the level of warnings about guests, if level and rate allow it."""
        if self._lower > _WARNING or (self._upper > _WARNING and self._may_print()):
            self._says(text)

    def _may_print(self) -> bool:
        """Return True if one more message may be printed now; say how many were not, before it."""
        now = int(self.seconds * 1000)
        self._tokens = min(self._tokens + now - self._last_ms, BURST * REFILL_MS)
        self._last_ms = now
        if self._tokens < REFILL_MS:
            self._missed += 1
            return False
        self._tokens -= REFILL_MS
        if self._missed:
            self._says(f"printk: {self._missed} messages suppressed.")
            self._missed = 0
        return True

    def _count(self, function: Sbdf) -> None:
        """Count a fault of a device that Xen lists; after too many, switch its bus mastering off."""
        if function not in self._list.devices:
            return
        count, last = self._faults.get(function, (0, 0.0))
        count = (count >> 1 if self.seconds - last > FORGIVEN_S else count) + 1
        self._faults[function] = count, self.seconds
        if count >= THRESHOLD and isinstance(self._hardware, ConfigHardware):
            value = self._command(function) & ~COMMAND_MASTER
            self._hardware.write(function, COMMAND.offset, COMMAND.size, value)

    def _command(self, function: Sbdf) -> int:
        """Return the Command register of a device; bus mastering on if the hardware has no registers."""
        if not isinstance(self._hardware, ConfigHardware):
            return COMMAND_MASTER
        config = self._hardware.config(function) or bytes(256)
        return int.from_bytes(config[COMMAND.offset :][: COMMAND.size], "little")
