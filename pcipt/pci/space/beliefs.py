"""Compare BARs and bridge windows with Linux's lines: has Linux an address for them, and is it the same?

Linux's addresses are those of the processor, a register's are those of the bus. They differ by the `Shift` of
the root bus, which is 0 unless the host bridge translates.

A BAR has no address if Linux has not given it one (IORESOURCE_UNSET), or if neither its register nor Linux's
line holds one. Linux does not write the address of a ROM to its register before it enables the ROM, so a ROM
that does not decode is not compared. While Linux sizes a BAR, decoding is off and the register holds ones:
such a register is not compared either.

Source: linux drivers/pci/setup-res.c (pci_std_update_resource, pci_enable_resources), drivers/pci/probe.c
        (__pci_read_base), include/linux/ioport.h (IORESOURCE_UNSET).
"""

from collections.abc import Sequence

from pcipt import values as attrs
from pcipt.pci.bars import UNUSED, VF_BAR_INDEX, Bar, BarKind, Resource, name_of_bar
from pcipt.pci.bridge import Window, WindowKind
from pcipt.pci.finding import Finding
from pcipt.pci.sriov import SrIov
from pcipt.pci.units import Address, Range
from pcipt.words import size_text

KINDS = {
    BarKind.IO: "I/O ports",
    BarKind.MEM32: "memory",
    BarKind.MEM64: "64-bit memory",
    BarKind.ROM: "memory",
}
WINDOW_NAMES = {
    WindowKind.IO: "I/O",
    WindowKind.MEMORY: "memory",
    WindowKind.PREFETCHABLE: "prefetchable memory",
}
_HALF = 0xFFFF_FFFF
#  lines of `resource` of a bridge: without and with CONFIG_PCI_IOV -> the number of its first window
_FIRST_WINDOW = {11: 7, 17: 13}
_WINDOW_ORDER = (WindowKind.IO, WindowKind.MEMORY, WindowKind.PREFETCHABLE)


@attrs.frozen
class Shift:
    """The difference of Linux's address and that of the register, for I/O ports and for memory.

    Both are 0 unless the host bridge translates addresses.
    """

    io: int = 0
    memory: int = 0

    def of(self, *, io: bool) -> int:
        """Return the difference for I/O ports if `io` is True, else that for memory."""
        return self.io if io else self.memory


NO_SHIFT = Shift()


def line_of(resources: Sequence[Resource], index: int) -> Resource:
    """Return line number `index` of sysfs `resource`, or an unused line if there are fewer lines."""
    return resources[index] if index < len(resources) else UNUSED


def has_address(line: Resource) -> bool:
    """Return True if Linux has an address in this line."""
    return bool(line.size and line.start and not line.flags & (Resource.UNSET | Resource.DISABLED))


def name_of(bar: Bar, *, virtual: bool = False) -> str:
    """Return the name of a BAR: "ROM", "BAR 0" and so on, or "VF BAR 0" if `virtual` is True."""
    return f"{'VF ' if virtual else ''}{name_of_bar(bar.index)}"


def compared(bar: Bar, line: Resource, shift: Shift = NO_SHIFT) -> Bar:
    """Return `bar` with what Linux's line says of it: `unassigned`, and `claimed` if that is another place.

    For the VF BAR of a physical function, `line` is that of all its virtual functions.
    """
    if line.size and line.flags & Resource.UNSET:
        return attrs.evolve(bar, unassigned=True)
    if not bar.address and not (line.size and line.start):
        return attrs.evolve(bar, unassigned=True)
    claimed = line.start - shift.of(io=bar.kind is BarKind.IO)
    if not line.size or claimed == bar.address or not (line.start or bar.decoding):
        return bar
    return attrs.evolve(bar, claimed=Range(Address(claimed), line.size))


def finding_of(bar: Bar, line: Resource, *, virtual: bool = False, vfs_on: bool = False) -> Finding | None:
    """Return the finding that a BAR has no address, or another one than Linux believes; None if all is well.

    `bar` must come from `compared`, and `line` is Linux's line of it. `virtual` is True for a VF BAR of a
    physical function, and then `vfs_on` says if its virtual functions are switched on.
    """
    name = name_of(bar, virtual=virtual)
    if bar.kind is BarKind.ROM and not bar.decoding:
        return None
    if bar.unassigned:
        return _vf_unassigned(bar, vfs_on=vfs_on) if virtual else _unassigned(bar, line)
    if bar.claimed is None or is_being_sized(bar):
        return None
    if bar.decoding:
        return Finding(
            "bar-drift",
            f"{name} decodes at {bar.address:#x}, but Linux has {bar.claimed.start:#x} for it: the driver "
            "uses wrong addresses; unbind the driver, remove the function in sysfs and rescan its bus, or "
            "write Linux's address into the register",
        )
    holds = f"holds {bar.address:#x}" if bar.address else "was cleared (it reads 0)"
    return Finding(
        "bar-drift",
        f"{name} {holds} and does not decode, but Linux has {bar.claimed.start:#x} for it: without Linux, "
        "something reset the function or wrote its register; unbind the driver, remove the function in "
        "sysfs and rescan its bus",
    )


def compared_vf_bars(
    sriov: SrIov, resources: Sequence[Resource], shift: Shift = NO_SHIFT
) -> tuple[SrIov, tuple[Finding, ...]]:
    """Return `sriov` with what Linux's lines say of its VF BARs, and the findings about them.

    `resources` are the lines of the physical function.
    """
    lines = [line_of(resources, VF_BAR_INDEX + bar.index) for bar in sriov.bars]
    bars = tuple(compared(bar, line, shift) for bar, line in zip(sriov.bars, lines, strict=True))
    on = sriov.vf_enable
    found = (finding_of(bar, line, virtual=True, vfs_on=on) for bar, line in zip(bars, lines, strict=True))
    return attrs.evolve(sriov, bars=bars), tuple(finding for finding in found if finding is not None)


def is_being_sized(bar: Bar) -> bool:
    """Return True if the register of a BAR may hold ones because it is being sized: it does not decode, and
    one half or both hold the ones of its size, the rest what Linux believes.
    """
    if bar.decoding or bar.claimed is None or not bar.size or bar.kind is BarKind.ROM:
        return False
    width = 64 if bar.kind is BarKind.MEM64 else 32
    ones = -bar.size & ((1 << width) - 1)
    if bar.kind is BarKind.IO and bar.address == ones & 0xFFFF:  # devices with 16 bits of ports
        return True
    return all(
        bar.address >> at & _HALF in (ones >> at & _HALF, bar.claimed.start >> at & _HALF)
        for at in range(0, width, 32)
    )


def _unassigned(bar: Bar, line: Resource) -> Finding:
    """Return the finding that a BAR has no address.

    Linux enables no function with a BAR that is IORESOURCE_UNSET; it passes over one whose line it has
    cleared. Without such a line, an I/O BAR is seldom missed.
    """
    text = _without_address(bar, virtual=False)
    if line.flags & Resource.UNSET:
        text += ", so Linux does not enable the function"
    if bar.address:
        text += (
            f"; its register holds {bar.address:#x} and {'decodes' if bar.decoding else 'does not decode'}"
        )
    elif bar.decoding:
        text += "; it decodes at address 0"
    spared = bar.kind is BarKind.IO and not line.flags & Resource.UNSET
    return Finding("io-bar-unassigned" if spared else "bar-unassigned", text)


def _vf_unassigned(bar: Bar, *, vfs_on: bool) -> Finding:
    """Return the finding that a VF BAR has no address. Linux then switches no virtual functions on; who did
    it nevertheless is the firmware, or another kernel.

    Source: linux drivers/pci/iov.c, sriov_enable ("not enough MMIO resources for SR-IOV").
    """
    if not vfs_on:
        what = "no virtual functions can be switched on"
    elif bar.decoding:
        what = f"the virtual functions are switched on and decode it from address {bar.address:#x} on"
    else:
        what = "the virtual functions are switched on and do not decode it: what uses it in them fails"
    return Finding("vf-bar-unassigned", f"{_without_address(bar, virtual=True)}, and {what}")


def _without_address(bar: Bar, *, virtual: bool) -> str:
    """Return the beginning of the text of both findings."""
    size = f"{size_text(bar.size)} " if bar.size else ""
    return f"{name_of(bar, virtual=virtual)} ({size}{KINDS[bar.kind]}) has no address: it is unassigned"


def window_lines(resources: Sequence[Resource]) -> tuple[tuple[WindowKind, Resource], ...]:
    """Return Linux's lines of the windows of a PCI bridge, or nothing if the number of lines is unknown."""
    first = _FIRST_WINDOW.get(len(resources))
    return () if first is None else tuple(zip(_WINDOW_ORDER, resources[first : first + 3], strict=True))


def compared_windows(
    windows: Sequence[Window], resources: Sequence[Resource], shift: Shift = NO_SHIFT
) -> tuple[Finding, ...]:
    """Return a finding for each window of a PCI bridge that is not where Linux's line has it.

    `windows` are the open windows of its registers. A window without an address in Linux is not compared, nor
    is an I/O window in steps of 1 KiB, which only some bridges of Intel have (linux drivers/pci/quirks.c,
    quirk_p64h2_1k_io).
    """
    held = {window.kind: window for window in windows}
    found = []
    for kind, line in window_lines(resources):
        window, below = held.get(kind), shift.of(io=kind is WindowKind.IO)
        fine = kind is WindowKind.IO and (line.start | line.size) % 0x1000
        if not has_address(line) or fine:
            continue
        first, last = line.start - below, line.start + line.size - 1 - below
        if window is not None and (window.base, window.limit) == (first, last):
            continue
        now = "is closed" if window is None else f"passes on {window.base:#x}-{window.limit:#x}"
        found.append(
            Finding(
                "window-drift",
                f"the {WINDOW_NAMES[kind]} window {now}, but Linux has {first:#x}-{last:#x} for it: without "
                "Linux, something reset the bridge or wrote its registers; remove the bridge in sysfs and "
                "rescan its bus",
            )
        )
    return tuple(found)
