"""Rules of passthrough about known trouble: requester ids, resets, graphics, BARs too large for a guest,
interrupts under a PVH dom0.

Source: xen/drivers/passthrough/pci.c (parse_phantom_dev, alloc_pdev: pci-phantom= works for a PCI Express
        endpoint whose function number is below the stride; at most 8 such options; the stride is doubled
        until no real function is on its way);
        tools/firmware/hvmloader/pci.c (pci_setup) and xen/include/public/hvm/e820.h, alike from 4.17 to 4.22;
        xl.cfg(5), gfx_passthru and mmio_hole; tools/libs/light/libxl_dm.c
        (libxl__detect_gfx_passthru_kind: with the device model qemu-xen gfx_passthru=1 is an error for other
        cards than the graphics of Intel's processors).
"""

from pcipt.firmware.passthrough.boot_options import verdict_without
from pcipt.firmware.passthrough.groups_quirks import Alias, alias_quirk, hides_express
from pcipt.firmware.passthrough.index import is_display
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.firmware.passthrough.trouble_table import Trouble, is_possible, troubles_of
from pcipt.firmware.passthrough.verdict import Evidence, Reason, Rule, Said, Verdict, names
from pcipt.pci import BarKind, ConfigSpace, Function, RawFunction, Sbdf, sbdf_from_devfn
from pcipt.pci.requester import Vendor, vendor_of
from pcipt.pci.structures import MSIX

_INTEL = 0x8086
_PIN = 0x3D
_MIB, _GIB = 1 << 20, 1 << 30
_MOST_PHANTOMS = 8
_HOLE = 192 * _MIB  # f0000000-fbffffff: what an HVM guest has below 4 GiB for BARs by default
_ABOVE_HOLE = 64 * _MIB  # fc000000-ffffffff: part of mmio_hole, and not for BARs
_HOLES = (512, 1024, 2048, 3072)  # MiB: values of mmio_hole at which the hole begins aligned
_RELOCATED = _GIB  # a 64-bit BAR above this size always goes above 4 GiB


def requester_alias(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if the device is known to send DMA requests with the id of another function.

    If an option on Xen's command line helps, the reason has that option.
    """
    row = alias_quirk(function)
    if row is None:
        return
    sbdf = function.sbdf
    number = 1 if row.alias is Alias.FUNCTION_1 else 0
    other = sbdf._replace(function=number)
    if row.alias is Alias.OTHER_DEVICE:
        text = "its DMA carries other device numbers of its bus, where Xen does not expect a device"
        yield Reason("dma-alias", Verdict.WARN, f"{text}: the IOMMU blocks it, and no option of Xen helps")
    elif other in evidence.machine.functions:
        text = f"its DMA carries the requester id of {other}"
        yield Reason(
            "dma-alias",
            Verdict.WARN,
            f"{text}: both functions must go to the same guest",
            f"pass {other} to the same guest",
        )
    elif number > sbdf.function and sbdf.fits_xen and (real := _in_the_way(function, number, evidence)):
        text = f"its DMA carries the id of {other}, a phantom function: the IOMMU blocks this DMA"
        why = (
            f"pci-phantom= does not help: {names(real)} is a real function, so Xen doubles the step and "
            f"misses {other}"
        )
        yield Reason("dma-alias", Verdict.WARN, f"{text}; {why}")
    elif number > sbdf.function and sbdf.fits_xen:
        yield _phantom(function, other, evidence)
    else:
        text = f"its DMA carries the id of {other}, which does not exist: the IOMMU blocks this DMA"
        yield Reason(
            "dma-alias", Verdict.WARN, f"{text}, and no option of Xen helps (pci-phantom= counts up)"
        )


def hidden_bridge(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if the function is behind a bridge that hides its PCI Express link, and VT-d in Xen
    does not map the requester id that such a bridge uses.

    A bridge from PCI Express to conventional PCI sends requests with the id of device 0, function 0 of the
    bus below. Xen maps this id only if the bridge says what it is; else only that of the bridge. Nothing is
    wrong if a function has this address: its guest must get all functions behind the bridge
    (`requester-id-shared`). AMD's firmware tells these ids in the IVRS.
    Source: xen/drivers/passthrough/vtd/iommu.c (domain_context_mapping), alike from 4.17 to 4.22; linux
            drivers/pci/quirks.c (quirk_use_pcie_bridge_dma_alias).
    """
    bridges = [each for each in evidence.machine.above(function) if evidence.knows_capabilities(each.sbdf)]
    hidden = [each for each in bridges if hides_express(each, evidence.machine.parent_of(each))]
    numbers = hidden[-1].bridge if hidden else None
    if numbers is None or vendor_of(evidence.machine) is not Vendor.INTEL:
        return
    used = sbdf_from_devfn(function.sbdf.segment, numbers.secondary, 0)
    if used not in evidence.machine.functions:
        text = (
            f"its DMA carries the id of {used}, for the bridge {hidden[-1].sbdf} above it has a PCI Express "
            "link and does not say so: Xen maps only the id of the bridge, and the IOMMU blocks this DMA"
        )
        yield Reason(
            "dma-alias",
            Verdict.WARN,
            text,
            "use a slot that is not behind this bridge: no option of Xen helps",
        )


def _in_the_way(function: Function, number: int, evidence: Evidence) -> list[Sbdf]:
    """Return the functions of the machine whose addresses Xen would use for phantom functions."""
    steps = range(number, 8, number - function.sbdf.function)
    places = (function.sbdf._replace(function=step) for step in steps)
    return [place for place in places if place in evidence.machine.functions]


def _phantom(function: Function, other: Sbdf, evidence: Evidence) -> Reason:
    """Return the reason for a function whose DMA comes from a phantom function: OK if Xen was told of it.

    Xen takes the first option that names the slot, and the first eight options.
    """
    sbdf, told = function.sbdf, evidence.host.boot.phantoms if evidence.host.boot is not None else ()
    steps = [step for *slot, step in told if tuple(slot) == sbdf[:3] and step > sbdf.function]
    line = f"pci-phantom={_slot(function)},{other.function - sbdf.function}"
    text = f"its DMA carries the id of {other}, a phantom function"
    if steps and (other.function - sbdf.function) % steps[0] == 0:
        there = f"pci-phantom={_slot(function)},{steps[0]}"
        return Reason("dma-alias", Verdict.OK, f"{text}; Xen already knows this from {there}")
    text = f"{text}: the IOMMU blocks this DMA unless Xen knows the phantom function"
    cure = f"add {line} to Xen's command line"
    if steps:
        cure = f"on Xen's command line, put {line} in place of the pci-phantom= for {_slot(function)}"
    elif len(told) >= _MOST_PHANTOMS:
        cure = f"{cure} in place of another pci-phantom=: Xen uses only {_MOST_PHANTOMS} of these options"
    return Reason("dma-alias", Verdict.WARN, text, cure, xen=line)


def _slot(function: Function) -> str:
    """Return segment, bus and device as pci-phantom= takes them; segment 0 is left out."""
    sbdf = function.sbdf
    segment = f"{sbdf.segment:04x}:" if sbdf.segment else ""
    return f"{segment}{sbdf.bus:02x}:{sbdf.device:02x}"


def resets(function: Function, evidence: Evidence) -> Said:
    """Yield a reason for each kind of trouble that the table has for the function.

    The reason is WARN, or OK if Linux is seen to avoid the trouble. Trouble with a kind of reset that the
    function does not have yields no reason.
    """
    methods = evidence.facts_of(function.sbdf).reset_methods
    avoided = {
        Trouble.HANGS: methods is not None and not {"flr", "af_flr"} & set(methods),
        Trouble.BUS: methods is not None and "bus" not in methods,
        Trouble.POWER: methods is not None and "pm" not in methods,
        Trouble.NEVER_AGAIN: methods is not None and methods[:1] == ("device_specific",),
        Trouble.SPECIFIC: methods is None or "device_specific" in methods,
    }
    for trouble in troubles_of(function):
        if not is_possible(trouble, function):
            continue
        fine = avoided[trouble]
        cure = "" if fine and methods is not None else trouble.cure
        yield Reason(trouble.code, Verdict.OK if fine else Verdict.WARN, trouble.text, cure)


def graphics(function: Function, _evidence: Evidence) -> Said:
    """Yield a reason for a display controller: WARN for the graphics of an Intel processor, else OK."""
    if not is_display(function):
        return
    place = function.sbdf
    if function.ids.vendor == _INTEL and function.parent is None and (place.bus, place.device) == (0, 2):
        text = (
            "it is the processor's graphics (IGD): an HVM guest needs its OpRegion and its stolen memory "
            "(a reserved region), and dom0 loses the screen"
        )
        line = 'gfx_passthru="igd"'
        yield Reason("igd", Verdict.WARN, text, f"add {line} to xl.cfg (device model qemu-xen)", xl=line)
        return
    text = (
        "it is a display: in an HVM guest it is the second display, after that of QEMU, and stays dark "
        "until its driver runs"
    )
    cure = "leave gfx_passthru out of xl.cfg: with it xl starts no guest that has such a card (qemu-xen)"
    yield Reason("display", Verdict.OK, text, cure)


def large_bars(function: Function, _evidence: Evidence) -> Said:
    """Yield a reason if the BARs do not fit below 4 GiB in an HVM guest: WARN if 32-bit BARs do not, else OK.

    64-bit BARs then go above 4 GiB. The devices that QEMU emulates take some of the same space. BARs of
    unknown size do not count.
    """
    memory = [bar for bar in function.bars if bar.kind is not BarKind.IO and bar.size]
    sizes = [(bar.kind is BarKind.MEM64, bar.size or 0) for bar in memory]
    narrow = sum(size for wide, size in sizes if not wide)
    low = narrow + sum(size for wide, size in sizes if wide and size <= _RELOCATED)
    huge = [bar for bar in memory if bar.kind is BarKind.MEM64 and (bar.size or 0) > _RELOCATED]
    window = f"the {_HOLE // _MIB} MiB below 4 GiB that an HVM guest has by default"
    hole = next((size for size in _HOLES if low + _ABOVE_HOLE <= size * _MIB), None)
    line = f"mmio_hole={hole}" if hole is not None and low > _HOLE else ""
    cure = f"add {line} to xl.cfg" if line else ""
    if narrow > _HOLE:
        text = f"its 32-bit BARs take {narrow // _MIB} MiB: they do not fit into {window}"
        yield Reason("large-bars", Verdict.WARN, text, cure, xl=line)
    elif huge:
        shown = ", ".join(f"BAR {bar.index} of {(bar.size or 0) // _GIB} GiB" for bar in huge)
        text = f"{shown} lies beyond {window}: hvmloader places it above 4 GiB"
        yield Reason("large-bars", Verdict.OK, f"{text}, where a guest needs a 64-bit system", cure, xl=line)
    elif low > _HOLE:
        text = (
            f"its BARs take {low // _MIB} MiB, more than {window}: hvmloader places 64-bit ones above 4 GiB"
        )
        yield Reason("large-bars", Verdict.OK, text, f"to keep them below: {cure}" if cure else "", xl=line)


def msix_of_pvh_dom0(function: Function, evidence: Evidence) -> Said:
    """Yield a reason if a PVH dom0 is to give away a function with MSI-X: REFUSE if it has nothing else, as a
    virtual function without MSI, else WARN.

    A guest's MSI-X entries are mapped only after PHYSDEVOP_prepare_msix, which a PVH dom0 may not call. So
    the device model gets ENODATA for each entry; seen on Xen 4.20.4 in the lab.
    Source: Xen arch/x86/hvm/hypercall.c (hvm_physdev_op), arch/x86/msi.c (msix_capability_init), alike from
            4.20 to 4.22.
    """
    if not _is_pvh_that_gives(evidence):
        return
    verdict = verdict_without(function, MSIX)
    if verdict is None:
        return
    text = "dom0 is PVH, and Xen does not let a PVH dom0 prepare MSI-X for a guest: the guest has no MSI-X"
    if verdict is Verdict.REFUSE:
        text = f"{text}, and a virtual function has no other interrupt"
    else:
        text = f"{text}; the device works if the guest's driver can use MSI or INTx"
    cure = "start Xen with a PV dom0 (without dom0=pvh), or use a driver's option such as e1000e's IntMode=1"
    yield Reason("pvh-dom0-msix", verdict, text, cure, frozenset({Guest.HVM}))


def _is_pvh_that_gives(evidence: Evidence) -> bool:
    """Return True if dom0 is PVH and may give devices to HVM guests."""
    host = evidence.host
    return host.dom0 is Guest.PVH and host.guests.get(Guest.HVM) is not Verdict.REFUSE


def is_pinless(raw: RawFunction) -> bool:
    """Return True if a function is known to have no interrupt pin, as every virtual function.

    Source: PCI Local Bus 3.0 §6.2.4 (Interrupt Pin); PCI Express Base 6.0 §9.3.4.1.18.
    """
    return raw.physfn is not None or ConfigSpace(raw.config or b"").u8(_PIN) == 0


def pin_for_pvh_dom0(function: Function, evidence: Evidence) -> Said:
    """Yield WARN if a PVH dom0 is to give away a function without an interrupt pin.

    Linux 6.12 asks for the interrupt of each function that xen-pciback gets on a PVH dom0, and refuses a
    function that has none ("Fail to get gsi info!"); seen in the lab. Later versions take it.
    Source: linux drivers/xen/xen-pciback/pci_stub.c (pcistub_init_device), since b166b8ab4189; mended by
            "xen/pciback: Make missing GSI non-fatal" of 2025.
    """
    if _is_pvh_that_gives(evidence) and function.sbdf in evidence.pinless:
        text = (
            "dom0 is PVH, and the function has no interrupt pin: xen-pciback of Linux 6.12 does not take it "
            "('Fail to get gsi info!' in the kernel's log)"
        )
        cure = "use a kernel of dom0 in which xen-pciback takes it, or start Xen without dom0=pvh"
        yield Reason("pvh-dom0-pin", Verdict.WARN, text, cure, frozenset({Guest.HVM}))


RULES: tuple[Rule, ...] = (
    requester_alias, hidden_bridge, resets, graphics, large_bars, msix_of_pvh_dom0, pin_for_pvh_dom0,
)  # fmt: skip
