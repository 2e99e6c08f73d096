"""The details of a function as rows of text and as JSON; both come from the same values."""

import os
from collections.abc import Iterator

from pcipt.cli.machine.details import Details
from pcipt.cli.machine.names import Names
from pcipt.errors import printable
from pcipt.host.function.facts import LinkFacts
from pcipt.pci import Function
from pcipt.pci.capabilities.details import VPD, Detail
from pcipt.pci.capabilities.links.link import speed_text
from pcipt.pci.identity import serial_text
from pcipt.pci.structures import SERIAL_NUMBER

Rows = list[tuple[str, ...]]
_KEEPS = {True: "NoSoftRst+: D3hot keeps its state", False: "NoSoftRst-: D3hot resets it"}


def device_rows(function: Function, details: Details, names: Names) -> Iterator[tuple[str, str]]:
    """Yield what decides about a function as (title, text). Unknown and absent facts are left out."""
    device = details.device
    interface = names.interface(function.ids)
    if function.ids.class_code is not None and (function.ids.class_code & 0xFF or interface):
        number = f"[{function.ids.class_code & 0xFF:02x}]"
        yield "Interface", printable(f"{interface} {number}" if interface else number)
    yield from _identity_rows(details)
    slot = [printable(device.slot)] if device.slot is not None else []
    slot += [f"number {details.slot_number} in the port above"] if details.slot_number is not None else []
    if slot:
        yield "Slot", ", ".join(slot)
    by = "ACPI index" if device.by_acpi else "index"
    label = [printable(device.label)] if device.label is not None else []
    label += [f"{by} {device.index}"] if device.index is not None else []
    if label:
        yield "Label", ", ".join(label)
    if details.interrupt_pin is not None:
        routed = f", IRQ {details.irq}" if details.irq is not None else ""
        yield "Interrupt", f"pin {details.interrupt_pin}{routed}"
    if details.link is not None:
        yield "Link", link_text(details.link)
    power = [details.power_state] if details.power_state is not None else []
    power += [_KEEPS[details.no_soft_reset]] if details.no_soft_reset is not None else []
    if power:
        yield "Power", ", ".join(printable(each) for each in power)
    yield from _resets(details)
    for severity, counts in (device.errors or {}).items():
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        yield f"Errors, {severity}", printable(shown or "none")


def may_see_serials() -> bool:
    """Return True if the user is root. Only root sees the serial numbers of devices."""
    return os.geteuid() == 0


def _identity_rows(details: Details) -> Iterator[tuple[str, str]]:
    """Yield the serial number (to root only), the host bridge, the IOMMU unit and group; what is known."""
    if details.serial and may_see_serials():
        yield "Serial number", serial_text(details.serial) or ""
    if details.host_bridge is not None:
        yield "Host bridge", details.host_bridge
    if details.unit is not None:
        yield "IOMMU unit", details.unit
    if details.linux.iommu_group is not None:
        yield "IOMMU group", str(details.linux.iommu_group)


def _resets(details: Details) -> Iterator[tuple[str, str]]:
    """Yield how the function can be reset: by its registers, and by Linux in the order of its attempts."""
    if details.flr is not None:
        ways = " ".join(details.own_resets)
        yield "Reset", f"FLR{'+' if details.flr else '-'}, of the function alone: {ways or 'none'}"
    methods = details.linux.reset_methods
    if methods is not None:
        yield "Reset by Linux", printable(" ".join(methods)) or "none"


def link_text(link: LinkFacts) -> str:
    """Return speed and width of a link, now and the highest that the function can."""
    now, most = (
        f"{speed_text(speed)} x{width if width is not None else '?'}"
        for speed, width in ((link.speed, link.width), (link.max_speed, link.max_width))
    )
    return f"{now}, at most {most}"


def capability_row(detail: Detail) -> tuple[str, ...]:
    """Return the cells of one capability in the list: its offset; its name, id and version."""
    capability = detail.capability
    version = f" v{capability.version}" if capability.extended else ""
    more = ", never read" if (capability.id, capability.extended) == (VPD, False) else ""
    return f"[{capability.offset:#04x}]", f"{capability.name} ({capability.id:#04x}{version}){more}"


def register_chapters(details: Details) -> list[tuple[str, Rows]]:
    """Return a chapter for each capability that is decoded: its title, and a row for each register."""
    return [
        (
            f"{detail.capability.name} at {detail.capability.offset:#04x}",
            [(f"{each.register.title}:", each.text) for each in detail.registers],
        )
        for detail in details.capabilities
        if detail.registers and _is_shown(detail)
    ]


def _is_shown(detail: Detail) -> bool:
    """Return True if the user may see the registers of a capability: the serial number is for root only."""
    capability = detail.capability
    return may_see_serials() or not (capability.extended and capability.id == SERIAL_NUMBER)


def json_from_details(function: Function, details: Details, names: Names) -> dict[str, object]:
    """Return the JSON object of the details of a function. What is unknown or absent is null."""
    linux, device, link = details.linux, details.device, details.link
    return {
        "subsystem_name": names.subsystem_name(function.ids),
        "interface_name": names.interface(function.ids),
        "serial": serial_text(details.serial or None) if may_see_serials() else None,
        "host_bridge": details.host_bridge,
        "iommu_unit": details.unit,
        "iommu_group": linux.iommu_group,
        "slot": device.slot,
        "slot_number": details.slot_number,
        "label": device.label,
        "index": device.index,
        "index_by_acpi": device.by_acpi,
        "interrupt_pin": details.interrupt_pin,
        "irq": details.irq,
        "link": None
        if link is None
        else {
            "speed": link.speed,
            "width": link.width,
            "max_speed": link.max_speed,
            "max_width": link.max_width,
        },
        "power_state": details.power_state,
        "no_soft_reset": details.no_soft_reset,
        "flr": details.flr,
        "own_resets": list(details.own_resets),
        "reset_methods": None if linux.reset_methods is None else list(linux.reset_methods),
        "errors": device.errors,
        "capabilities": [
            {
                "id": f"0x{each.capability.id:0{4 if each.capability.extended else 2}x}",
                "offset": hex(each.capability.offset),
                "name": each.capability.name,
                "version": each.capability.version if each.capability.extended else None,
                "registers": each.json if _is_shown(each) else None,
            }
            for each in details.capabilities
        ],
    }
