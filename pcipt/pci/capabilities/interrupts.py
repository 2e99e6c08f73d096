"""Interrupts: MSI, MSI-X, and HyperTransport's mapping of MSI.

Source: PCI Local Bus 3.0 §6.8; PCI Express Base 6.0 §7.7.1 (MSI), §7.7.2 (MSI-X); HyperTransport I/O Link
        3.10 §7.12 (MSI mapping).
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.fields import (
    Field,
    Register,
    Structure,
    View,
    flag,
    flags,
    hexa,
    plus,
    power_of_two,
)
from pcipt.pci.structures import MSI, MSIX

HYPERTRANSPORT = 0x08
_MSI_MAPPING = 0x15


def _msi(view: View) -> Iterator[Register]:
    """Yield the registers of MSI. A 64-bit address moves the registers after it; the masks are optional."""
    yield Register(
        "control",
        "MSI",
        2,
        2,
        (
            flag(0, "Enable", "enable"),
            Field("vectors_enabled", "Vectors", 4, 3, power_of_two()),
            Field("vectors", "possible", 1, 3, power_of_two()),
            *flags((8, "Maskable", "maskable"), (7, "64bit", "address_64bit")),
        ),
    )
    wide, masks = view.bits(2, 2, 7, 1), view.bits(2, 2, 8, 1)
    size = 8 if wide else 4
    yield Register("address", "Address", 4, size, (Field("address", "", 0, 8 * size, hexa(2 * size)),))
    yield Register("data", "Data", 4 + size, 2, (Field("data", "", 0, 16, hexa(4)),))
    if masks:
        for key, title, offset in (("masked", "Masking", 8), ("pending", "Pending", 12)):
            yield Register(key, title, offset + size, 4, (Field("vectors", "", 0, 32, hexa(8)),))


def _place(title: str, key: str, offset: int) -> Register:
    """Return a register that holds a BAR number, and an offset in this BAR that is a multiple of 8."""
    return Register(
        key,
        title,
        offset,
        4,
        (Field("bar", "BAR", 0, 3), Field("offset", "offset", 3, 29, hexa(8, shift=3))),
    )


def _hypertransport(view: View) -> Iterator[Register]:
    """Yield the registers of MSI mapping; of other HyperTransport structures only the type.

    Types 0 and 1 have three bits, all others five.
    """
    yield Register("command", "HyperTransport", 2, 2, (Field("type", "Type", 11, 5, hexa(2)),))
    if view.bits(2, 2, 11, 5) != _MSI_MAPPING:
        return
    yield Register("msi_mapping", "MSI Mapping", 2, 2, flags((0, "Enable", "enable"), (1, "Fixed", "fixed")))
    if not view.bits(2, 2, 1, 1):
        yield Register(
            "mapping_base",
            "Mapping Address Base",
            4,
            8,
            (Field("address", "", 20, 44, hexa(16, shift=20)),),
        )


STRUCTURES = (
    Structure(MSI, False, _msi),
    Structure(
        MSIX,
        False,
        (
            Register(
                "control",
                "MSI-X",
                2,
                2,
                (
                    flag(15, "Enable", "enable"),
                    Field("vectors", "Count", 0, 11, plus(1)),
                    flag(14, "Masked", "masked"),
                ),
            ),
            _place("Vector table", "table", 4),
            _place("PBA", "pba", 8),
        ),
    ),
    Structure(HYPERTRANSPORT, False, _hypertransport),
)
