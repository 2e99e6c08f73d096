"""Decode one PCI function: turn the bytes and files that were read of it (`RawFunction`) into a `Function`.

The hardware's view is the config space. Linux's view is the sysfs files. The ids and the place are taken from
Linux if it has them, everything else that registers show from the hardware. If the two views have different
values for vendor or device, for a BAR, a window or the bus below a bridge, a finding says so.

Source: PCI Local Bus 3.0 §6.2.
"""

from pcipt import values as attrs
from pcipt.pci import structures
from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.bars import LAYOUT, Bar, bars_from_resources
from pcipt.pci.bridge import Bridge, decode_bridge
from pcipt.pci.buses.numbers import wrong_primary
from pcipt.pci.capabilities import Capability, walk_capabilities
from pcipt.pci.config import COMMAND_MEMORY, HEADER_SIZE, ConfigSpace, HeaderType
from pcipt.pci.finding import Finding
from pcipt.pci.function_bars import Decoded, function_bars, virtual_bars
from pcipt.pci.ids import Ids, join_ids
from pcipt.pci.isolation import Isolation, decode_isolation
from pcipt.pci.raw import RawFunction, Told
from pcipt.pci.space.beliefs import (
    NO_SHIFT,
    Shift,
    compared_vf_bars,
    compared_windows,
    finding_of,
    line_of,
)
from pcipt.pci.sriov import SrIov, decode_sriov
from pcipt.pci.topology import Position

CARDBUS_CLASS = 0x0607
_SILENT = "config space reads all ones: the function does not answer (any more)"


@attrs.frozen
class Function:
    """One PCI function, decoded. None means unknown or not present; an empty tuple means the same.

    `path` and `parent` are its place: the PCI path, and the bridge directly above (None on a root bus).
    `command` is the command register. `driver` is the Linux driver bound to it. `bridge` is set for a bridge
    whose bus numbers were read. `sriov` is the SR-IOV structure of a physical function. `physfn` is set for a
    virtual function: the address of its physical function. `controller` is set for a function on the root bus
    of a segment that lies below a function of another segment (a VMD controller): the address of the latter.
    `isolation` has the registers that decide whether it can be separated from its neighbours.
    `title` is lspci's heading of a function that is known from lspci's words alone.
    `shift` is what the host bridge adds to the addresses of registers. `platform` has the registers by which
    Xen judges the machine; None if fewer than 256 bytes of config space were read.

    `answers` is False if the whole header reads all ones (the function does not answer). `answers` is None if
    no byte was read, or if only a part of the header was read and this part is all ones. Otherwise it is
    True.
    """

    sbdf: Sbdf
    path: PciPath | None
    parent: Sbdf | None
    ids: Ids
    header: HeaderType
    command: int | None
    driver: str | None
    numa_node: int | None
    bars: tuple[Bar, ...]
    bridge: Bridge | None
    capabilities: tuple[Capability, ...]
    express: structures.Express | None
    msix: structures.Msix | None
    rebar: tuple[structures.ResizableBar, ...]
    allocations: tuple[structures.Allocation, ...]
    sriov: SrIov | None
    physfn: Sbdf | None
    answers: bool | None
    findings: tuple[Finding, ...]
    controller: Sbdf | None = None
    isolation: Isolation | None = None
    title: str = ""
    shift: Shift = NO_SHIFT
    platform: structures.Platform | None = None

    @property
    def is_bridge(self) -> bool:
        """Return True if the function is a bridge whose bus numbers were read."""
        return self.bridge is not None

    @property
    def decodes_memory(self) -> bool | None:
        """Return True if memory decode is on in the command register, None if that register was not read.

        Of a virtual function this bit has no meaning: see `decoding` of its BARs.
        """
        return None if self.command is None else bool(self.command & COMMAND_MEMORY)


def decode_function(
    raw: RawFunction,
    position: Position | None = None,
    physfn: Function | None = None,
    shift: Shift = NO_SHIFT,
) -> Function:
    """Return the function that `raw` describes, decoded. Damaged or missing config space raises nothing; the
    function has a finding about it.

    `position` is its place as `place_functions` computes it. Without `position`, the parent is the bridge
    that Linux names, and there is no path. `physfn` is the decoded physical function, if `raw` is a virtual
    function. Without `physfn`, the BARs of a virtual function have the addresses that Linux has. `shift` is
    what the host bridge adds to the addresses of registers.

    If `answers` of the result is None or False (see `Function`), everything that registers show is unknown:
    `header` is UNKNOWN, `command` is None, `capabilities` is empty. If `answers` is None, the BARs are
    Linux's. If `answers` is False, there are no BARs.
    """
    position = position or Position(raw.parent, None)
    config = ConfigSpace(raw.config or b"")
    if not config.answers:
        return _unread_function(raw, position, config)
    capabilities, findings = walk_capabilities(config)
    place = {(c.extended, c.id): c.offset for c in reversed(capabilities)} if capabilities else {}
    ids, drift = join_ids(
        raw.ids,
        config,
        virtual=raw.physfn is not None,
        subsystem_at=place.get((False, structures.SUBSYSTEM)),
    )
    header, bridge = config.header, decode_bridge(config)
    express_at, msix_at = place.get((False, structures.EXPRESS)), place.get((False, structures.MSIX))
    ea_at = place.get((False, structures.ENHANCED_ALLOCATION))
    rebar_at, sriov_at = place.get((True, structures.REBAR)), place.get((True, structures.SRIOV))
    vf_rebar_at = place.get((True, structures.VF_REBAR))
    rebar = structures.decode_rebar(config, rebar_at) if rebar_at else ()
    vf_rebar = structures.decode_rebar(config, vf_rebar_at) if vf_rebar_at else ()
    allocations: tuple[structures.Allocation, ...] = ()
    if ea_at:
        allocations = structures.decode_allocations(config, ea_at, bridge=header is HeaderType.BRIDGE)
    msix, broken = _decode_msix(config, msix_at) if msix_at else (None, ())
    bars, compared = _bars(raw, config, ids, allocations, physfn, rebar, shift)
    sriov = decode_sriov(config, sriov_at, raw.resources, vf_rebar) if sriov_at else None
    lost: tuple[Finding, ...] = ()
    if sriov is not None:
        sriov, lost = compared_vf_bars(sriov, raw.resources, shift)
    return Function(
        sbdf=raw.sbdf,
        path=position.path,
        parent=position.parent,
        ids=ids,
        header=header,
        command=config.command,
        driver=raw.driver,
        numa_node=raw.numa_node,
        bars=bars,
        bridge=bridge,
        capabilities=capabilities,
        express=structures.decode_express(config, express_at) if express_at else None,
        msix=msix,
        rebar=rebar,
        allocations=allocations,
        sriov=sriov,
        physfn=raw.physfn,
        answers=True,
        findings=(
            *raw.findings,
            *_segment_finding(raw),
            *position.findings,
            *_header_findings(config),
            *findings,
            *drift,
            *_bus_drift(raw, bridge),
            *(wrong_primary(raw.sbdf, bridge) if bridge is not None else ()),
            *compared,
            *lost,
            *_window_drift(raw, header, bridge, shift),
            *broken,
        ),
        controller=raw.controller,
        isolation=decode_isolation(config, capabilities),
        shift=shift,
        platform=structures.decode_platform(config, place.get((False, structures.SECURE_DEVICE))),
    )


def _unread_function(raw: RawFunction, position: Position, config: ConfigSpace) -> Function:
    """Return a function whose registers are unknown, with a finding that says why they are unknown.

    Its BARs are those that Linux has. If the function does not answer (`answers` is False), it has no BARs.
    """
    if raw.told is not None:
        return _told_function(raw, raw.told, position)
    if config.answers is False:
        why = Finding("no-answer", _SILENT)
    elif len(config):
        why = Finding(
            "config-short",
            f"only {len(config)} bytes of config space could be read, and all bits of them are 1",
        )
    else:
        why = Finding(
            "no-config", ("config space cannot be read: pcipt shows the addresses and ids that Linux has")
        )
    bars = () if config.answers is False else bars_from_resources(raw.resources)
    return attrs.evolve(_unknown(raw, position, why), bars=bars, answers=config.answers)


def _told_function(raw: RawFunction, told: Told, position: Position) -> Function:
    """Return a function that is known from lspci's words alone: what they do not tell is unknown.

    The header is that of a bridge if there are bus numbers, else unknown. A function that does not answer has
    no BARs, as if its registers had been read.
    """
    if told.silent:
        silent = Finding("no-answer", f"{_SILENT}, as lspci's words show")
        return attrs.evolve(_unknown(raw, position, silent), answers=False, title=told.title)
    why = (
        "the dump has no bytes of this function: ids, BARs and bus numbers are from lspci's words, and "
        "capabilities are unknown; `lspci -xxxx`, run as root, prints the bytes"
    )
    cardbus = raw.ids.class_code is not None and raw.ids.class_code >> 8 == CARDBUS_CLASS
    header = HeaderType.CARDBUS if cardbus else HeaderType.BRIDGE
    lost = (finding_of(bar, line_of(raw.resources, bar.index)) for bar in told.bars)
    numbers = wrong_primary(raw.sbdf, told.bridge) if told.bridge is not None else ()
    unknown = _unknown(raw, position, Finding("no-config", why))
    return attrs.evolve(
        unknown,
        findings=(*unknown.findings, *numbers, *filter(None, lost)),
        header=header if told.bridge is not None else HeaderType.UNKNOWN,
        command=told.command,
        bars=told.bars,
        bridge=told.bridge,
        title=told.title,
    )


def _unknown(raw: RawFunction, position: Position, why: Finding) -> Function:
    """Return a function of which only Linux's facts are known. `why` is the finding that says why."""
    return Function(
        sbdf=raw.sbdf,
        path=position.path,
        parent=position.parent,
        ids=raw.ids,
        header=HeaderType.UNKNOWN,
        command=None,
        driver=raw.driver,
        numa_node=raw.numa_node,
        bars=(),
        bridge=None,
        capabilities=(),
        express=None,
        msix=None,
        rebar=(),
        allocations=(),
        sriov=None,
        physfn=raw.physfn,
        answers=None,
        findings=(*raw.findings, *_segment_finding(raw), *position.findings, why),
        controller=raw.controller,
    )


def _bars(
    raw: RawFunction,
    config: ConfigSpace,
    ids: Ids,
    allocations: tuple[structures.Allocation, ...],
    physfn: Function | None,
    rebar: tuple[structures.ResizableBar, ...],
    shift: Shift,
) -> Decoded:
    """Return the BARs of the function, and findings about them.

    The BARs of a virtual function are computed from `physfn`. If `physfn` is None or has no SR-IOV structure,
    the BARs of a virtual function are Linux's.
    """
    if raw.physfn is None:
        resized = {bar.index: bar.size for bar in rebar}
        return function_bars(config, raw.resources, ids.class_code, allocations, resized, shift)
    above = (physfn.sbdf, physfn.sriov) if physfn is not None and physfn.sriov is not None else None
    return virtual_bars(raw.sbdf, raw.resources, above, shift)


def _decode_msix(config: ConfigSpace, offset: int) -> tuple[structures.Msix | None, tuple[Finding, ...]]:
    """Return the MSI-X structure at `offset` and no findings.

    Return None and a finding if the structure names a BAR number that this header does not have. Return None
    and no findings if the structure was not read completely.
    """
    msix = structures.decode_msix(config, offset)
    count = LAYOUT[config.header][1]
    if msix is None or max(msix.table.bar, msix.pba.bar) < count:
        return msix, ()
    why = (
        f"the MSI-X capability names BARs {msix.table.bar} and {msix.pba.bar}, but the function has only "
        f"{count} BARs"
    )
    return None, (Finding("msix-broken", f"{why}: do not pass this device through"),)


def _header_findings(config: ConfigSpace) -> tuple[Finding, ...]:
    """Return a finding if fewer than 64 bytes were read, or if the header type is unknown; else an empty
    tuple.
    """
    if len(config) < HEADER_SIZE:
        return (Finding("config-short", f"only {len(config)} bytes of config space could be read"),)
    if config.header is HeaderType.UNKNOWN:
        layout = config.data[0x0E] & 0x7F
        why = f"header type {layout:#x} is none of 0, 1, 2: its BARs are not decoded"
        return (Finding("header-unknown", why),)
    return ()


def _bus_drift(raw: RawFunction, bridge: Bridge | None) -> tuple[Finding, ...]:
    """Return a finding if Linux's number for the bus below a bridge differs from the bridge's register.

    Return an empty tuple if they are equal or if one of them is unknown.
    """
    if bridge is None or raw.secondary is None or raw.secondary == bridge.secondary:
        return ()
    why = (
        f"the bridge passes on bus {bridge.secondary:02x}, but Linux has bus {raw.secondary:02x} for it: "
        "the functions behind the bridge have moved to other addresses; remove the bridge in sysfs and "
        "rescan"
    )
    return (Finding("bus-drift", why),)


def _window_drift(
    raw: RawFunction, header: HeaderType, bridge: Bridge | None, shift: Shift
) -> tuple[Finding, ...]:
    """Return a finding for each window of a PCI bridge that is not where Linux has it.

    Nothing is compared if the bus below is another one than Linux has: that finding says it all.
    """
    if bridge is None or header is not HeaderType.BRIDGE or _bus_drift(raw, bridge):
        return ()
    return compared_windows(bridge.windows, raw.resources, shift)


def _segment_finding(raw: RawFunction) -> tuple[Finding, ...]:
    """Return a finding if the segment has more than 16 bits, so that Xen cannot name the function; else an
    empty tuple.
    """
    if raw.sbdf.fits_xen:
        return ()
    of = f" of {raw.controller}" if raw.controller is not None else ""
    why = (
        f"segment {raw.sbdf.segment:x} has more than the 16 bits that Xen knows, so Xen cannot name this "
        "function (VMD). The function stays in dom0; its BARs lie inside the "
        f"BARs{of or ' of its controller'} and are mapped with them"
    )
    return (Finding("segment-not-in-xen", why),)
