"""Root Complex Link Declaration: which parts of the root complex are connected inside it.

Source: PCI Express Base 6.0 §7.9.8.
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.fields import Field, Register, Structure, View, flag, hexa, one_of
from pcipt.pci.config import EXTENDED_SIZE

LINK_DECLARATION = 0x0005
_FIRST, _SIZE = 0x10, 16  # bytes: where the first link is, and how far apart they are
_LOW = 64  # bits: where the address of a link begins


def _function(raw: int) -> str:
    """Return the function whose config space a link leads to: 1 to 8 bits of its bus number are there."""
    low = raw >> _LOW
    bits = low & 7 or 8
    return f"{low >> 20 & (1 << bits) - 1:02x}:{low >> 15 & 0x1F:02x}.{low >> 12 & 7}"


_LINK = (
    Field("target_port", "TargetPort", 24, 8, hexa(2)),
    Field("target_component", "TargetComponent", 16, 8, hexa(2)),
    flag(2, "AssocRCRB", "register_block"),
    Field("type", "LinkType", 1, 1, one_of({0: "MemMapped", 1: "Config"})),
    flag(0, "LinkValid", "valid"),
)
_TO_FUNCTION = Field("function", "Function", 0, _LOW + 32, _function)
_ADDRESS = Field("address", "Addr", _LOW, 64, hexa(16))


def _registers(view: View) -> Iterator[Register]:
    """Yield the description of the element, then one register for each of its links."""
    yield Register(
        "element",
        "Desc",
        4,
        4,
        (
            Field("port", "PortNumber", 24, 8, hexa(2)),
            Field("component", "ComponentID", 16, 8, hexa(2)),
            Field("type", "EltType", 0, 4, one_of({0: "Config", 1: "Egress", 2: "Internal"})),
        ),
    )
    for number in range(view.bits(4, 4, 8, 8)):
        at = _FIRST + _SIZE * number
        if view.offset + at + _SIZE > EXTENDED_SIZE:
            return
        is_function = bool(view.bits(at, 4, 1, 1))
        fields = (*_LINK, *((_TO_FUNCTION,) if is_function else ()), _ADDRESS)
        yield Register("links", f"Link{number}", at, _SIZE, fields, many=True)


STRUCTURES = (Structure(LINK_DECLARATION, True, _registers),)
