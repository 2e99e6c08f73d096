"""Rules of passthrough about what a guest's configuration file of xl says (`Evidence.xl`).

Source: tools/xl/xl_parse.c (parse_config_data); tools/libs/light/libxl_create.c
        (libxl__domain_config_setdefault: populate-on-demand, passthrough=disabled), libxl_pci.c
        (libxl__device_pci_add: seize, a device that is not assignable or assigned already;
        pci_add_qmp_device_add: permissive, the slot); alike from 4.17 to 4.22.
"""

from collections.abc import Iterable, Iterator, Sequence

from pcipt import values as attrs
from pcipt.firmware.passthrough.reasons import Guest, Reason, Verdict
from pcipt.firmware.passthrough.verdict import RELAXED, Evidence, Report, Rule, Said
from pcipt.hints import TYPE_CHECKING
from pcipt.pci import Function, Sbdf

if TYPE_CHECKING:
    from pcipt.pci.notation.xl_guest import XlDevice, XlGuest

_PCIBACK = "pciback"
_HVM = frozenset({Guest.HVM})


def named(device: "XlDevice", functions: Iterable[Sbdf]) -> list[Sbdf]:
    """Return the functions that an item of `pci` names, in their order; none for an item with a name."""
    return [sbdf for sbdf in functions if device.names(sbdf)]


def complaints(guest: "XlGuest") -> list[str]:
    """Return what is wrong with a file as a whole, in words with the cure: xl goes over it without a word."""
    told = []
    if guest.single:
        told.append("pci is no list: xl ignores it, and the guest gets no device; write pci = [ … ]")
    elif not guest.devices:
        told.append("the file names no device; write pci = [ … ]")
    told += (
        f"{each.text} is a name that only xl knows, so pcipt does not check this device; xl "
        "pci-assignable-list -n shows its address"
        for each in guest.devices
        if each.slot is None
    )
    if guest.rdm_policy:
        told.append(
            f"rdm= has a policy ({guest.rdm_policy}), so xl ignores the whole option and uses strict; write "
            "rdm_policy=relaxed at each device that needs it"
        )
    return told


def refused_options(function: Function, evidence: Evidence) -> Said:
    """Yield a REFUSE reason for each option with which xl does not start a guest that gets the function."""
    guest = evidence.xl
    if guest is None:
        return
    items = [each for each in guest.devices if each.names(function.sbdf)]
    if len(items) > 1:
        text = f"pci names this device {len(items)} times: xl does not start the guest"
        yield Reason("xl-twice", Verdict.REFUSE, text, "name the device once", place=guest.source)
    if guest.passthrough == "disabled":
        text = "the file says passthrough=disabled and names devices: xl does not start the guest"
        yield Reason(
            "xl-passthrough-off",
            Verdict.REFUSE,
            text,
            ("delete passthrough= from the file"),
            place=guest.source,
        )
    memory, most = guest.memory, guest.most
    if guest.kind != Guest.PV.value and memory is not None and most is not None and memory < most:
        text = f"memory ({memory}) is less than maxmem ({most}): xl refuses devices with populate-on-demand"
        yield Reason("xl-populate-on-demand", Verdict.REFUSE, text, f"maxmem = {memory}", place=guest.source)
    slots = {each.vslot for each in items if each.vslot}
    others = [each for each in guest.devices if each not in items and each.vslot in slots]
    if others:
        text = f"{others[0].text} has the same slot in the guest ({others[0].vslot or 0:x}): QEMU refuses one"
        cure = "give each a slot of its own, or none"
        yield Reason("xl-slot-twice", Verdict.REFUSE, text, cure, guests=_HVM, place=guest.source)


def risky_options(function: Function, evidence: Evidence) -> Said:
    """Yield reasons for the options that the guest's file gives to the function.

    WARN: an option gives the guest more rights, or xl does not do what the option says. OK: xl cannot assign
    the function yet. Without facts of Linux the driver is unknown, and a function without a driver is not
    judged.
    """
    guest = evidence.xl
    device = next((each for each in guest.devices if each.names(function.sbdf)), None) if guest else None
    if guest is None or device is None:
        return
    driver = function.driver if function.driver != _PCIBACK else None
    if "permissive" in device.switches:
        text = (
            "permissive lets the guest write every register of the configuration space, also registers that "
            "are not known to be safe"
        )
        yield Reason(
            "xl-permissive", Verdict.WARN, text, "leave it out unless the guest is trusted and needs it"
        )
    if "seize" in device.switches and driver is not None:
        text = f"seize takes the device from dom0's driver {driver} when the guest starts, without a question"
        yield Reason(
            "xl-seize",
            Verdict.WARN,
            text,
            f"`pcipt release {function.sbdf}` first, and take seize out of the file",
        )
    for odd in device.odd:
        text = f"{odd} is off: xl reads numbers only"
        yield Reason("xl-switch", Verdict.WARN, text, f"{odd.partition('=')[0]}=1, or leave it out")
    if "seize" not in device.switches and (driver is not None or (evidence.facts and not function.driver)):
        has = f"dom0's driver {driver} has it" if driver is not None else "it is not bound to xen-pciback"
        yield Reason(
            "xl-not-assignable", Verdict.OK, f"{has}: xl does not start the guest", _release(function)
        )


def _release(function: Function) -> str:
    return f"`pcipt release {function.sbdf}` first"


def line_for(guest: "XlGuest", reports: Sequence[Report]) -> tuple[str, ...]:
    """Return the line `pci` of a file with rdm_policy=relaxed where it is needed and missing.

    Items with a refused function are left out. No line is returned if none is left.
    """
    items = [
        f'"{device.text}{RELAXED if any(each.relaxed for each in found) and not device.relaxed else ""}"'
        for device, found in _items(guest, reports)
    ]
    return (f"pci = [ {', '.join(items)} ]",) if items else ()


def in_line(guest: "XlGuest", reports: Sequence[Report]) -> tuple[Report, ...]:
    """Return the reports on the functions that `line_for` names. With that line none of them is refused."""
    found = {report.sbdf: report for _, reports in _items(guest, reports) for report in reports}
    return tuple(
        attrs.evolve(each, verdict=Verdict.WARN) if each.verdict is Verdict.REFUSE else each
        for each in found.values()
    )


def _items(guest: "XlGuest", reports: Sequence[Report]) -> Iterator[tuple["XlDevice", list[Report]]]:
    """Yield the devices that stay in the line, with the reports on their functions.

    An item with a name, which only xl knows, stays. An item whose functions are absent does not.
    """
    by_address = {report.sbdf: report for report in reports}
    for device in guest.devices:
        found = [by_address[sbdf] for sbdf in named(device, by_address)]
        absent = device.slot is not None and not found
        refused = any(report.verdict is Verdict.REFUSE and not _only_strict(report) for report in found)
        if not absent and not refused:
            yield device, found


def _only_strict(report: Report) -> bool:
    """Return True if the policy for reserved regions is all that speaks against a function."""
    return {each.code for each in report.reasons if each.verdict is Verdict.REFUSE} == {"reserved-shared"}


RULES: tuple[Rule, ...] = (refused_options, risky_options)
