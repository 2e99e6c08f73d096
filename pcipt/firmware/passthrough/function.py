"""Rules of passthrough about one function: what it is, who uses it, whether it can be reset and named.

Each rule yields a `Reason` for each problem; the rule `address` yields a note (verdict OK). A rule yields an
`Unknown` for each fact that the evidence lacks, if the docstring of the rule says so.
Source: xen/drivers/passthrough/pci.c (assign_device); tools/libs/light/libxl_pci.c; linux xen-pciback.
"""

from collections.abc import Mapping

from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.firmware.passthrough.verdict import Evidence, Reason, Rule, Said, Unknown, Verdict, names
from pcipt.pci import Function, HeaderType
from pcipt.pci.requester import requester_of
from pcipt.pci.space.shortage import told_findings
from pcipt.xen.releases import DEVICE_RESET, SEGMENTS_READ_FOR_IOMMU

_RESCAN = "remove the function in sysfs and rescan its bus; `pcipt show` says what is wrong"
_PLACE = "boot dom0's Linux with pci=realloc; `pcipt space` shows the windows"

# Source: QEMU hw/xen/xen_pt.c (xen_pt_register_regions); xen/arch/x86/msi.c (msix_capability_init).
_FIXED_BARS = (
    "guests see these addresses as ordinary BARs (dom0 needs Linux 4.5 or newer), but not the capability. "
    "Xen prints a warning about MSI-X, because it looks for the table in the BAR registers"
)

# class code >> 8: word for a report. Other bridges are recognised by their header or base class.
_PLATFORM = {
    0x0600: "a host bridge",
    0x0601: "an ISA bridge",
    0x0604: "a PCI bridge",
    0x0607: "a CardBus bridge",
    0x0800: "an interrupt controller",
    0x0806: "an IOMMU, which Xen drives",
}

# class code >> 8, on a root bus: parts of the processor or chipset that affect the whole machine.
_CHIPSET = {
    **dict.fromkeys((0x0801, 0x0802, 0x0803, 0x0804, 0x0807, 0x0880), "a system peripheral"),
    0x0500: "a memory controller",
    0x0C05: "the SMBus (memory modules, sensors)",
    0x1101: "counters of the processor",
}

# Relevant findings of the decoder, each with its verdict and a way to change it.
_FINDINGS: Mapping[str, tuple[Verdict, str]] = {
    "segment-not-in-xen": (Verdict.REFUSE, "switch VMD off in the firmware's setup"),
    "no-answer": (
        Verdict.REFUSE,
        ("plug the device in again, or remove the function in sysfs and rescan its bus"),
    ),
    "no-config": (Verdict.WARN, "run as root, or record the machine as root"),
    "dump-malformed": (Verdict.WARN, "ask for the dump again, as a file"),
    "duplicate-address": (
        Verdict.WARN,
        ("ask which of these machines is meant, and ask for a dump of that machine alone"),
    ),
    "header-unknown": (Verdict.REFUSE, ""),
    "msix-broken": (Verdict.REFUSE, ""),
    "bar-broken": (Verdict.REFUSE, _RESCAN),
    "bar-drift": (Verdict.REFUSE, _RESCAN),
    "bar-resized": (Verdict.REFUSE, _RESCAN),
    "bar-unassigned": (Verdict.REFUSE, _PLACE),
    "io-bar-unassigned": (Verdict.WARN, _PLACE),
    "vf-bar-unassigned": (Verdict.WARN, _PLACE),
    "id-drift": (Verdict.REFUSE, _RESCAN),
    "address-repeated": (Verdict.REFUSE, "rescan the machine"),
    "two-places": (Verdict.REFUSE, "rescan that bus"),
    "capability-loop": (Verdict.WARN, ""),
    "capability-pointer": (Verdict.WARN, ""),
    "enhanced-allocation": (Verdict.WARN, _FIXED_BARS),
    "no-path": (Verdict.WARN, "rescan the bus"),
    "bridge-vanished": (Verdict.REFUSE, "rescan the bus"),
}

# Findings of a bridge that matter to all functions below it, each with its verdict and a way to change it.
_RESCAN_BRIDGE = "rescan that bridge"
_ABOVE: Mapping[str, tuple[Verdict, str]] = {
    "bus-drift": (Verdict.REFUSE, _RESCAN_BRIDGE),
    "bus-numbers": (Verdict.REFUSE, _RESCAN_BRIDGE),
    "bus-conflict": (Verdict.REFUSE, _RESCAN_BRIDGE),
    "bus-primary": (Verdict.WARN, "before any rescan write the number back (`pcipt show` has the command)"),
    "window-drift": (Verdict.REFUSE, _RESCAN_BRIDGE),
    "no-answer": (Verdict.REFUSE, _RESCAN_BRIDGE),
}

_ORPHAN = (
    "Xen lists it without an owner (orphan), and binding it to xen-pciback crashes a PVH host with Xen from "
    f"{DEVICE_RESET.begins} on"
)
_XEN: Mapping[str, tuple[str, str]] = {
    "unknown-to-xen": ("Xen does not know it", "`pcipt resync` tells Xen of it, if the guards allow it"),
    "orphan": (_ORPHAN, "`pcipt resync` tries to add it again; if it is refused, `reboot`"),
}
_ORPHANED = "nobody (orphan)"  # the daemon's word for the owner

# The daemon's words for owners that are neither dom0 nor a guest.
_HIDDEN: Mapping[str, str] = {
    "Xen itself": "Xen keeps it for itself, as the port of its own console",
    "an owner that Xen does not name": "Xen gives it to no guest, and does not say who has it",
}


def platform(function: Function, _evidence: Evidence) -> Said:
    """Yield a REFUSE reason if the function is a bridge, an interrupt controller or an IOMMU.

    Yield `Unknown` if both its class and its header type are unknown.
    """
    code = function.ids.class_code
    if code is None and function.header is HeaderType.UNKNOWN:
        yield Unknown("class", Verdict.REFUSE)
    if not belongs_to_machine(function):
        return
    what = _PLATFORM.get((code or 0) >> 8, "a bridge")
    cure = "pass the functions behind it" if function.bridge is not None else ""
    yield Reason("platform", Verdict.REFUSE, f"it is {what}: the machine itself needs it", cure)


def chipset(function: Function, _evidence: Evidence) -> Said:
    """Yield a WARN reason if the function is a part of the chipset on a root bus, e.g. the SMBus.

    Yield nothing if its class is not known.
    """
    what = _CHIPSET.get((function.ids.class_code or 0) >> 8) if function.parent is None else None
    if what is not None:
        text = (
            f"it is {what} of the processor or chipset: a guest with this function could disturb the whole "
            "machine"
        )
        yield Reason("chipset", Verdict.WARN, text, "leave it to dom0")


def decoder_findings(function: Function, evidence: Evidence) -> Said:
    """Yield a reason for each relevant decoder finding about the function or about a bridge above it.

    Relevant are the codes in `_FINDINGS` for the function, and the codes in `_ABOVE` for a bridge; these
    tables have the verdicts. Yield `Unknown` too if at most 64 bytes (the header) of the function's config
    space were read.
    """
    if not evidence.knows_capabilities(function.sbdf):
        yield Unknown("capabilities")
    for finding, helps in told_findings(evidence.machine, function, evidence.root_windows):
        if finding.code in _FINDINGS:
            verdict, cure = _FINDINGS[finding.code]
            yield Reason(finding.code, verdict, finding.text, helps or cure)
    for bridge in evidence.machine.above(function):
        for finding in bridge.findings:
            if finding.code in _ABOVE:
                text = f"the bridge {bridge.sbdf} above it: {finding.text}"
                yield Reason(finding.code, _ABOVE[finding.code][0], text, _ABOVE[finding.code][1])


def known_to_xen(function: Function, evidence: Evidence) -> Said:
    """Yield a REFUSE reason for each cause for which Xen cannot assign the function.

    Causes: Xen does not know the function; Xen has it without an owner; a guest owns it; Xen keeps it. If
    `evidence.xen` is None, yield only `Unknown`. A recording does not hold Xen's list, so there this counts
    for nothing.
    """
    if evidence.xen is None:
        yield Unknown("what Xen knows", Verdict.REFUSE if evidence.live else Verdict.OK)
        return
    owner = evidence.owners.get(function.sbdf, "")
    disagreed = evidence.xen.get(function.sbdf, "orphan" if owner == _ORPHANED else None)
    if disagreed is not None:
        what, cure = _XEN[disagreed]
        yield Reason(disagreed, Verdict.REFUSE, f"{what}: it cannot be assigned", cure)
    if owner.startswith("guest"):
        text = f"it belongs to {owner}"
        cure = f"detach it there first: `xl pci-detach {owner.removeprefix('guest ')} {function.sbdf}`"
        yield Reason("owned-by-guest", Verdict.REFUSE, text, cure)
    elif owner in _HIDDEN:
        text = f"{_HIDDEN[owner]}: assigning it fails with EBUSY"
        yield Reason(
            "owned-by-xen", Verdict.REFUSE, text, "give Xen another console (console=, com1=, dbgp=)"
        )


def cut_segments(function: Function, evidence: Evidence) -> Said:
    """Yield a reason if Xen lists functions behind this VMD controller without an owner: REFUSE if this Xen
    panics when the controller leaves its driver, else WARN.

    Cause: Linux before 6.15 cuts the segments of these functions, and removes them from Xen's list when the
    driver is unbound.
    """
    cut = evidence.cut_segments.get(function.sbdf)
    if cut is not None:
        verdict = Verdict.REFUSE if cut.panics else Verdict.WARN
        yield Reason("vmd-orphans", verdict, cut.text)


def permissions(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason for each finding about the guests' access to this function.

    There are two kinds of such findings. A guest still has access to the function although it no longer owns
    the function. Or a guest owns the function and lacks access to it.
    """
    for finding in evidence.guests.get(function.sbdf, ()):
        yield Reason(finding.code, Verdict.WARN, finding.text)


def host(_function: Function, evidence: Evidence) -> Said:
    """Yield the reasons for which this host cannot give devices to guests, or should not, and what is not
    known of that.

    A reason that only informs is left out, unless one kind of guest was asked about.
    """
    yield from evidence.host.unknown
    for reason in evidence.host.reasons:
        if reason.verdict is not Verdict.OK or evidence.guest is not None:
            yield reason


def iommu(function: Function, evidence: Evidence) -> Said:
    """Yield a REFUSE reason if Xen uses an IOMMU and no unit of it serves the function.

    Yield `Unknown` if the IOMMU units are not known, unless Xen has taken the function: with an IOMMU it
    takes none that no unit serves; so also if nobody knows whether Xen could read the bridge above the
    function. Nothing is checked if Xen cannot name the function's segment.
    """
    if evidence.host.used is False or (evidence.iommu is not None and evidence.iommu.absent):
        return  # the rule `host` says so
    taken = evidence.host.used and evidence.xen is not None and function.sbdf not in evidence.xen
    if evidence.iommu is None:
        if not taken:
            yield Unknown("IOMMU")
        return
    if not function.sbdf.fits_xen:
        return
    from pcipt.firmware.coverage import Coverage  # only root may read the tables

    requester = requester_of(function, evidence.machine)
    coverage, bridge = evidence.iommu.covers(requester), evidence.iommu.lost_below(requester)
    if coverage is Coverage.UNKNOWN and not taken:
        yield Unknown(f"whether Xen could read the bridge {bridge} for the IOMMU", Verdict.REFUSE)
    if coverage is not Coverage.NONE:
        return
    if bridge is None:
        text = "no IOMMU unit serves it: assigning it fails with ENODEV"
        yield Reason("iommu-uncovered", Verdict.REFUSE, text, "use another slot, or newer firmware")
    else:
        text = (
            f"Xen could not read the bridge {bridge} above it when Xen read the table of the IOMMU, so no "
            "IOMMU unit serves the function: assigning it fails with ENODEV"
        )
        cure = f"use Xen {SEGMENTS_READ_FOR_IOMMU.begins} or newer, with firmware that reserves MMCFG"
        yield Reason("iommu-uncovered", Verdict.REFUSE, text, cure)


def in_use(function: Function, evidence: Evidence) -> Said:
    """Yield a REFUSE reason if the function carries dom0's root file system, and one if it carries a console.

    Yield a WARN reason if the function is the display used at boot and gets no reason for a console. Yield
    `Unknown` if it is not known which functions carry the root file system. Yield another `Unknown` if it is
    not known which functions carry a console.
    """
    if evidence.carriers is None:
        yield Unknown("root file system")
    elif function.sbdf in evidence.carriers:
        text = "it carries the root file system of dom0: dom0 cannot run without it"
        yield Reason("root-filesystem", Verdict.REFUSE, text, "move the root file system to another disk")
    if evidence.consoles is not None and function.sbdf in evidence.consoles:
        text = "it carries a console of dom0: this console would not work any more"
        yield Reason(
            "console", Verdict.REFUSE, text, "give dom0 another console (console= of Xen and of Linux)"
        )
    elif evidence.facts_of(function.sbdf).boot_vga:
        text = "it is the display that firmware and Xen use at boot"
        yield Reason(
            "boot-display", Verdict.WARN, text, "make another display the first in the firmware's setup"
        )
    if evidence.consoles is None:
        yield Unknown("console")


def virtual_functions(function: Function, evidence: Evidence) -> Said:
    """Yield a REFUSE reason if the function is a physical function that has virtual functions.

    Cause: the virtual functions vanish when the physical function is removed, and some versions of Xen break
    the physical function and its virtual functions then (`releases.PF_WITH_VFS_STAYS`). Yield `Unknown` too
    if Linux gives no facts about any function and the function's extended config space was not read.
    """
    if not evidence.facts and not evidence.knows_extended(function.sbdf):
        yield Unknown("virtual functions")
    listed = evidence.index.virtual.get(function.sbdf, ())
    sriov = function.sriov
    enabled = sriov is not None and sriov.vf_enable and sriov.num_vfs > 0
    if listed or enabled:
        shown = names(listed) if listed else f"{sriov.num_vfs if sriov is not None else 0} enabled"
        text = f"it has virtual functions ({shown}), which disappear when it leaves dom0"
        yield Reason(
            "pf-with-vfs",
            Verdict.REFUSE,
            text,
            f"pass its VFs, or: `echo 0 > /sys/bus/pci/devices/{function.sbdf}/sriov_numvfs`",
        )


def sized(function: Function, evidence: Evidence) -> Said:
    """Yield a REFUSE reason for a virtual function if Xen has no sizes for the BARs of virtual functions of
    its physical function: xen-pciback cannot prepare its MSI-X.
    """
    if function.physfn is not None and function.physfn in evidence.unsized:
        text = (
            f"Xen was told of the physical function {function.physfn} while virtual functions were on, so "
            "Xen does not find the MSI-X table of this virtual function: MSI-X fails in a guest"
        )
        cure = f"write 0 to sriov_numvfs of {function.physfn}, `pcipt resync`, then switch them on again"
        yield Reason("vf-unsized", Verdict.REFUSE, text, cure)


def reset(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if the function is an endpoint that Linux has no method to reset.

    Yield `Unknown` if the reset methods are not known.
    """
    methods = evidence.facts_of(function.sbdf).reset_methods
    if methods is None:
        yield Unknown("reset support")
    elif not methods and function.header is HeaderType.ENDPOINT:
        text = (
            "Linux knows no way to reset it (reset_method): the next user finds the data that a guest left "
            "in it"
        )
        yield Reason("no-reset", Verdict.WARN, text, "power the machine off between users")


def address(function: Function, _evidence: Evidence) -> Said:
    """Yield an OK reason if the function is behind a bridge: its bus number may change, its path does not.

    Yield nothing if the function is on a root bus or its path is not known.
    """
    if function.parent is None or function.path is None:
        return
    text = (
        f"its bus number {function.sbdf.bus:02x} can change when a card is added or removed, and xl and "
        f"xen-pciback use this number; its path {function.path} does not change"
    )
    cure = f"keep it for a guest by its path: `pcipt policy add {function.path}`"
    yield Reason("address-may-shift", Verdict.OK, text, cure)


RULES: tuple[Rule, ...] = (
    host,
    platform,
    chipset,
    decoder_findings,
    known_to_xen,
    cut_segments,
    permissions,
    iommu,
    in_use,
    virtual_functions,
    sized,
    reset,
    address,
)
