"""Capabilities that a vendor defines (virtio, Designated Vendor Specific), and Data Object Exchange.

Source: PCI Express Base 6.0 §7.9.4-6, §7.9.24 (DOE); Virtio 1.2 §4.1.4 (PCI capabilities), §4.1.2 (ids);
        linux drivers/platform/x86/intel/vsec.h (Intel's DVSEC ids).
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.cxl import CXL, CXL_NAMES, cxl_registers
from pcipt.pci.capabilities.fields import Field, Register, Structure, View, flag, flags, hexa, one_of

VENDOR, VENDOR_EXTENDED, DVSEC, DATA_OBJECTS = 0x09, 0x000B, 0x0023, 0x002E
_VIRTIO_VENDOR, _VIRTIO_DEVICES, _VIRTIO_LEAST = 0x1AF4, range(0x1000, 0x1080), 16
_NOTIFY, _SHARED_MEMORY = 2, 8
_VIRTIO = one_of(
    {
        1: "CommonCfg",
        2: "Notify",
        3: "ISR",
        4: "DeviceCfg",
        5: "PCICfg",
        8: "SharedMemory",
        9: "VendorCfg",
    }
)
_INTEL = 0x8086
_DVSEC_NAMES = {
    **{(CXL, number): name for number, name in CXL_NAMES.items()},
    (_INTEL, 2): "Intel telemetry",
    (_INTEL, 3): "Intel watcher",
    (_INTEL, 4): "Intel crash log",
    (_INTEL, 65): "Intel SDSi",
    (_INTEL, 66): "Intel TPMI",
}


def _vendor(view: View) -> Iterator[Register]:
    """Yield the length of the structure, and what virtio keeps in it if the function is a virtio device."""
    yield Register("header", "Vendor Specific", 2, 1, (Field("length", "Len", 0, 8, hexa(2)),))
    vendor, device = view.config.u16(0), view.config.u16(2)
    if vendor != _VIRTIO_VENDOR or device not in _VIRTIO_DEVICES or view.bits(2, 1, 0, 8) < _VIRTIO_LEAST:
        return
    yield Register("virtio", "VirtIO", 3, 1, (Field("type", "", 0, 8, _VIRTIO),))
    yield Register(
        "place",
        "Place",
        4,
        12,
        (
            Field("bar", "BAR", 0, 8),
            Field("offset", "offset", 32, 32, hexa(8)),
            Field("size", "size", 64, 32, hexa(8)),
        ),
    )
    kind, length = view.bits(3, 1, 0, 8), view.bits(2, 1, 0, 8)
    if kind == _NOTIFY and length >= 20:
        yield Register("multiplier", "Notify multiplier", 16, 4, (Field("value", "", 0, 32, hexa(8)),))
    if kind == _SHARED_MEMORY and length >= 24:
        yield Register(
            "upper_halves",
            "Upper halves",
            16,
            8,
            (Field("offset", "offset", 0, 32, hexa(8)), Field("size", "size", 32, 32, hexa(8))),
        )


def dvsec_name(vendor: int, number: int) -> str | None:
    """Return the name of a Designated Vendor Specific structure; None if it is not known."""
    return _DVSEC_NAMES.get((vendor, number))


def _header(key: str, word: str) -> Field:
    return Field(key, word, 0, 16, hexa(4))


_SIZES = (Field("revision", "Rev", 16, 4), Field("length", "Len", 20, 12))


def _designated(view: View) -> Iterator[Register]:
    """Yield the two headers, and what is inside a structure of CXL."""
    vendor, number = view.bits(4, 2, 0, 16), view.bits(8, 2, 0, 16)
    yield Register("header", "DVSEC", 4, 4, (_header("vendor", "Vendor"), *_SIZES))
    yield Register(
        "kind",
        "Kind",
        8,
        2,
        (_header("id", "ID"), Field("name", "Name", 0, 16, lambda found: dvsec_name(vendor, found))),
    )
    if vendor == CXL:
        yield from cxl_registers(number, view.bits(6, 2, 0, 4), view.bits(6, 2, 4, 12))


STRUCTURES = (
    Structure(VENDOR, False, _vendor),
    Structure(
        VENDOR_EXTENDED,
        True,
        (Register("header", "Vendor Specific", 4, 4, (_header("id", "ID"), *_SIZES)),),
    ),
    Structure(DVSEC, True, _designated),
    Structure(
        DATA_OBJECTS,
        True,
        (
            Register(
                "capability",
                "DOECap",
                4,
                4,
                (
                    flag(0, "IntSup", "interrupt_support"),
                    Field(
                        "interrupt_message",
                        "Interrupt Message Number",
                        1,
                        11,
                        when=lambda view: bool(view.bits(4, 4, 0, 1)),
                    ),
                ),
            ),
            Register("control", "DOECtl", 8, 4, (flag(1, "IntEn", "interrupt_enable"),)),
            Register(
                "status",
                "DOESta",
                12,
                4,
                flags(
                    (0, "Busy", "busy"),
                    (1, "IntSta", "interrupt"),
                    (2, "Error", "error"),
                    (31, "ObjectReady", "object_ready"),
                ),
            ),
        ),
    ),
)
