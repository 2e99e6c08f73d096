"""Tables of a host that Xen of each release takes, and files of a machine under Xen, for tests."""

import struct

from pcipt.firmware.acpi.build_table import Header, build_table
from tests.firmware.reserved_tables import ivhd, ivrs, select, span, special

APIC_UNIT = struct.pack("<HHBBHQ", 0, 24, 1, 0, 0, 0xFED9_0000) + bytes([3, 8, 0, 0, 2, 0xF0, 0x1F, 0])
REMAPS = 1


def good_dmar(*entries, flags=REMAPS, width=38):
    """Make a DMAR with one unit that serves all functions and IO-APIC 2."""
    return build_table(Header("DMAR", 1), bytes([width, flags]) + bytes(10) + b"".join((APIC_UNIT, *entries)))


def good_ivrs(*blocks):
    """Make an IVRS with one unit that serves bus 00 and IO-APIC 2."""
    return ivrs(ivhd(select(0), span(0x8, 0xFF), special(0xA0, handle=2)), *blocks)


def madt(*apics):
    """Make a MADT with IO-APICs of these ids."""
    body = b"".join(
        struct.pack("<BBBBII", 1, 12, apic, 0, 0xFEC0_0000 + 0x1000 * number, 24 * number)
        for number, apic in enumerate(apics)
    )
    return build_table(Header("APIC", 3), struct.pack("<II", 0xFEE0_0000, 1) + body)


def put_tables(root, **tables):
    """Write tables by name: DMAR=bytes, APIC=bytes."""
    directory = root / "sys/firmware/acpi/tables"
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in tables.items():
        (directory / name).write_bytes(data)


def put_xen(root, *, kind="PV", xen="4.17.7", linux="6.1.0-18-amd64", capabilities=None):
    """Write what Linux shows of Xen and of itself."""
    major, minor, extra = xen.split(".", 2)
    files = {
        "sys/hypervisor/type": "xen",
        "sys/hypervisor/guest_type": kind,
        "sys/hypervisor/version/major": major,
        "sys/hypervisor/version/minor": minor,
        "sys/hypervisor/version/extra": f".{extra}",
        "proc/xen/capabilities": "control_d",
    }
    if linux is not None:
        files["proc/sys/kernel/osrelease"] = linux
    if capabilities is not None:
        files["sys/hypervisor/properties/capabilities"] = capabilities
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{text}\n")


__all__ = ["REMAPS", "good_dmar", "good_ivrs", "madt", "put_tables", "put_xen"]
