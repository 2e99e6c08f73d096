"""Judge what a host can do: can guests be given devices at all, and which kinds of guest.

It is judged once per machine. Where Xen itself could be asked, its answer counts, and not what the firmware's
tables promise; a difference between the two is a finding. What could not be looked at is named, and the
verdict is then UNKNOWN. Each rule yields a `Reason` for what speaks against it, with its place and its cure,
and an `Unknown` for each fact that it lacks.
Source: Xen tools/libs/light/libxl_create.c (libxl__domain_config_setdefault: no IOMMU, no device),
        libxl_x86.c (libxl__arch_passthrough_mode_setdefault: no PVH guest), libxl_pci.c (pci_add_dm_done:
        GSI of a PVH dom0), drivers/passthrough/x86/iommu.c (a PVH dom0 without an IOMMU panics),
        drivers/passthrough/iommu.c (iommu_setup); xl.cfg(5), e820_host.
"""

from collections.abc import Callable, Iterator

from pcipt import values as attrs
from pcipt.firmware.passthrough.host import Host, HostFacts, IommuKind, Source, TablesSay, XenSays
from pcipt.firmware.passthrough.reasons import GRAVEST_FIRST, Guest, Reason, Unknown, Verdict, by_guest
from pcipt.pci import Finding
from pcipt.xen.releases import LINUX_TELLS_GSI, PVH_DOM0_GIVES_DEVICES, Version, parse_version

PV, HVM, PVH = (frozenset({guest}) for guest in Guest)
NEEDED = "without an IOMMU a guest with a device could reach all memory, so xl gives devices to no guest"
PV_DOM0 = "start Xen with a PV dom0 (without dom0=pvh)"
FINDING = "host-differs"

Said = Iterator[Reason | Unknown]


@attrs.frozen
class IommuUse:
    """Whether Xen uses an IOMMU, which kind, does it remap interrupts, who tells. None is not known."""

    kind: IommuKind | None
    used: bool | None
    remaps: bool | None
    source: Source


def iommu_use(facts: HostFacts) -> IommuUse:
    """Return how Xen uses the IOMMU. Xen's own word tells it, else the kind of dom0, else the tables.

    A PVH dom0 does not boot without an IOMMU, nor does Xen with iommu=force; with that it also stops if it
    should remap interrupts and cannot. Without an IOMMU no interrupt is remapped.
    """
    said, tables = facts.said, facts.tables or TablesSay()
    kind = said.kind or tables.kind or facts.kind
    forced = said.forced and not said.iommu_off
    used, source = said.iommu, Source.XEN
    if used is None and forced:
        used = True
    elif used is None and facts.dom0 is Guest.PVH:
        used, source = True, Source.DOM0
    elif used is None:
        used, source = _promised(facts), Source.TABLES
    if used is None:
        source = Source.NOBODY
    remaps = said.remaps
    if remaps is None and used:
        refused = tables.accepted is False  # then the tables tell nothing about interrupts
        told = None if refused or queue_off(said, kind) else tables.remaps
        remaps = False if said.remap_off else True if forced else told
    return IommuUse(kind, used, remaps if used is not False else False, source)


def queue_off(said: XenSays, kind: IommuKind | None) -> str:
    """Return the word with which a VT-d remaps no interrupts for want of queued invalidation; empty if none.

    Hardware of version 6 and newer has nothing else, and Xen keeps it on there; no table tells the version.
    """
    return said.queue_off if kind is not IommuKind.AMD_VI else ""


def _promised(facts: HostFacts) -> bool | None:
    """Return True if Xen should use an IOMMU by its command line and the tables; None if not known."""
    if facts.said.iommu_off:
        return False
    return facts.tables.accepted if facts.tables is not None else None


def xen(facts: HostFacts) -> Said:
    """Yield what is not known of Xen and of the kind of dom0."""
    if facts.under_xen is False:
        yield Unknown("Xen, because this Linux does not run under it", Verdict.REFUSE)
        return
    if facts.xen is None:
        yield Unknown("Xen's version", Verdict.REFUSE)
    if facts.dom0 is None:
        yield Unknown("kind of dom0", Verdict.REFUSE)


def pvh_dom0(facts: HostFacts) -> Said:
    """Yield why a PVH dom0 cannot give devices to guests, or not to PV guests."""
    if facts.dom0 is not Guest.PVH:
        return
    needs = f"Xen {PVH_DOM0_GIVES_DEVICES.begins} and Linux {LINUX_TELLS_GSI.begins}"
    newer = f"{PV_DOM0}, or use {needs} or newer"
    if facts.xen is not None and not PVH_DOM0_GIVES_DEVICES.of(facts.xen):
        text = f"dom0 is PVH, and under Xen {facts.release} such a dom0 cannot give a device to any guest"
        yield Reason("pvh-dom0", Verdict.REFUSE, text, newer, place=f"Xen {facts.release}, dom0=pvh")
        return
    linux = _version(facts.linux)
    if linux is None:
        yield Unknown("version of dom0's Linux", Verdict.REFUSE)
    elif not LINUX_TELLS_GSI.of(linux):
        text = (
            f"dom0 is PVH, and its Linux {facts.linux} cannot tell xl the interrupt of a device for a guest"
        )
        yield Reason("pvh-dom0-linux", Verdict.REFUSE, text, newer, place=f"Linux {facts.linux}")
    text = "a PVH dom0 can give devices to HVM guests only"
    cure = f'use an HVM guest (type="hvm"), or {PV_DOM0}'
    yield Reason("pvh-dom0-pv-guest", Verdict.REFUSE, text, cure, PV, "dom0=pvh")


def _version(text: str | None) -> Version | None:
    """Return the version in a text of Linux, such as 6.1.0-18-amd64; None if there is none."""
    try:
        return parse_version(text or "")
    except ValueError:
        return None


def guests_of_xen(facts: HostFacts) -> Said:
    """Yield the kinds of guest that this Xen cannot run."""
    if facts.said.guests is None:
        return
    if Guest.HVM not in facts.said.guests:
        text = "this Xen runs no HVM guest: the processor's virtualisation is off or missing"
        cure = "switch VT-x or AMD-V (SVM) on in the firmware's setup"
        yield Reason("no-hvm", Verdict.REFUSE, text, cure, HVM, "Xen's capabilities")
    if Guest.PV not in facts.said.guests:
        text = "this Xen runs no PV guest: it was built without them (CONFIG_PV)"
        yield Reason("no-pv", Verdict.REFUSE, text, 'use an HVM guest (type="hvm")', PV, "Xen's capabilities")


def pvh_guest(_facts: HostFacts) -> Said:
    """Yield that a PVH guest takes no device."""
    yield Reason(
        "pvh-guest", Verdict.REFUSE, "xl gives no device to a PVH guest", 'use type="hvm" for it', PVH
    )


def pv_guest(_facts: HostFacts) -> Said:
    """Yield what a PV guest needs besides the device."""
    text = "a PV guest with a device needs the holes of the host's memory map, and bounce buffers for DMA"
    cure = (
        "e820_host=1 in its configuration (xl sets it if pci= names a device, not for one that is attached "
        "later); its Linux with xen-pcifront and swiotlb (iommu=soft on its command line)"
    )
    yield Reason("pv-guest-needs", Verdict.OK, text, cure, PV)


def iommu(facts: HostFacts) -> Said:
    """Yield why Xen uses no IOMMU, or what is not known of that."""
    use, said, tables = iommu_use(facts), facts.said, facts.tables or TablesSay()
    if use.used is None:
        for what in tables.unknown or ("tables of the IOMMU (DMAR, IVRS)",):
            yield Unknown(what, Verdict.REFUSE)
        yield from tables.doubts
    elif use.used is False and said.iommu_off:
        text = f"Xen was started with {said.iommu_off} and uses no IOMMU: {NEEDED}"
        cure = f"start Xen without {said.iommu_off}"
        yield Reason("iommu-off", Verdict.REFUSE, text, cure, place="Xen's command line")
    elif use.used is False:
        against = [each for each in tables.reasons if each.verdict is Verdict.REFUSE]
        yield from against or [_without(facts)]


def _without(facts: HostFacts) -> Reason:
    """Return the reason why Xen uses no IOMMU if no rule about the tables says it."""
    if facts.tables is not None and facts.tables.kind is None:
        text = f"the firmware describes no IOMMU: {NEEDED}"
        cure = "switch VT-d or AMD-Vi on in the firmware's setup"
        return Reason("no-iommu", Verdict.REFUSE, text, cure, place="no table DMAR or IVRS")
    printed = f" (it printed: {'; '.join(facts.said.lines)})" if facts.said.lines else ""
    cure = (
        "read what `xl dmesg` says about VT-d or AMD-Vi, and switch VT-d or AMD-Vi on in the firmware's setup"
    )
    return Reason("no-iommu", Verdict.REFUSE, f"Xen runs without an IOMMU{printed}: {NEEDED}", cure)


def interrupts(facts: HostFacts) -> Said:
    """Yield a warning if Xen uses an IOMMU and does not remap interrupts, or that this is not known."""
    use = iommu_use(facts)
    if use.used and use.remaps is None:
        yield Unknown("interrupt remapping")
    elif use.used and use.remaps is False:
        text = "Xen does not remap interrupts: a guest that has a device can raise any interrupt of the host"
        off = facts.said.remap_off or queue_off(facts.said, use.kind)
        if off:
            place = "Xen's command line"
            yield Reason(
                "interrupts-not-remapped", Verdict.WARN, text, f"start Xen without {off}", place=place
            )
            return
        against = (
            [each for each in facts.tables.reasons if each.verdict is Verdict.WARN] if facts.tables else []
        )
        cure = "switch interrupt remapping on in the firmware's setup, or ask the vendor for firmware"
        yield from against or [Reason("interrupts-not-remapped", Verdict.WARN, text, cure)]


RULES: tuple[Callable[[HostFacts], Said], ...] = (
    xen, pvh_dom0, iommu, interrupts, guests_of_xen, pvh_guest, pv_guest,
)  # fmt: skip


def option_faults(facts: HostFacts) -> tuple[Finding, ...]:
    """Return a finding for each option rmrr= or ivmd= of which Xen does not take all."""
    if not facts.said.options.faults:
        return ()
    from pcipt.firmware.regions.added import OPTION  # it loads much, and few have such faults

    return tuple(Finding(OPTION, each) for each in facts.said.options.faults)


def differences(facts: HostFacts) -> tuple[Finding, ...]:
    """Return a finding for each thing that Xen does other than the firmware's tables promise."""
    said, tables = facts.said, facts.tables
    if tables is None:
        return ()
    remapped = (tables.remaps and not said.remap_off) if _promised(facts) else None
    if queue_off(said, tables.kind):
        remapped = None
    pairs = (
        ("the IOMMU", _promised(facts), said.iommu),
        ("interrupt remapping", remapped, said.remaps if said.iommu else None),
    )
    return tuple(
        Finding(
            FINDING,
            f"by the firmware's tables Xen {'would use' if promised else 'would not use'} {what}, but Xen "
            f"{'uses' if does else 'does not use'} it. What Xen does counts; please send `pcipt report` to "
            "the makers of pcipt",
        )
        for what, promised, does in pairs
        if promised is not None and does is not None and promised is not does
    )


def judge_host(facts: HostFacts) -> Host:
    """Return what a host can do."""
    said = [each for rule in RULES for each in rule(facts)]
    reasons = [each for each in said if isinstance(each, Reason)]
    unknown = [each for each in said if isinstance(each, Unknown)]
    guests = by_guest(reasons, unknown)
    possible = {guest for guest, verdict in guests.items() if verdict is not Verdict.REFUSE}
    reasons = [each for each in reasons if each.verdict is not Verdict.OK or each.guests & possible]
    reasons.sort(key=lambda reason: GRAVEST_FIRST.index(reason.verdict))
    use = iommu_use(facts)
    return Host(
        facts.dom0, facts.release, facts.linux, use.kind, use.used, use.remaps, use.source, tuple(reasons),
        tuple(dict.fromkeys(unknown)), guests, (*differences(facts), *option_faults(facts)),
        facts.said.boot,
    )  # fmt: skip


NOTHING_KNOWN = judge_host(HostFacts())
