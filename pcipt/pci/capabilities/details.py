"""Everything that is decoded of capabilities: one table of structures, and a function's capabilities by it.

Only `pcipt show` needs this module; the service decodes what it uses in `pcipt.pci.structures`.
"""

from pcipt import values as attrs
from pcipt.pci.capabilities import (
    access,
    address_space,
    conventional,
    errors,
    interrupts,
    power,
    resets,
    translation,
    vendor,
    virtual,
)
from pcipt.pci.capabilities.fields import Decoded, Structure, Value, View, decode, json_of
from pcipt.pci.capabilities.links import channels, express, link, root_complex, slot, timing
from pcipt.pci.capabilities.walk import Capability, find_capability
from pcipt.pci.config import ConfigSpace
from pcipt.pci.structures import EXPRESS

VPD = 0x03
CHAPTERS = (
    access, address_space, channels, conventional, errors, express, interrupts, link, power, resets,
    root_complex, slot, timing, translation, vendor, virtual,
)  # fmt: skip
STRUCTURES: dict[tuple[bool, int], Structure] = {
    (each.extended, each.id): each for chapter in CHAPTERS for each in chapter.STRUCTURES
}


@attrs.frozen
class Detail:
    """A capability and its registers. `registers` is None if pcipt does not decode this capability.

    Vital Product Data are never read: that needs a mailbox, which is slow and hangs some devices, and they
    hold serial numbers.
    """

    capability: Capability
    registers: tuple[Decoded, ...] | None

    @property
    def json(self) -> dict[str, object] | None:
        """Return the registers as a JSON object by their keys; None if they are not decoded."""
        return None if self.registers is None else json_of(self.registers)


def details_of(config: ConfigSpace, capabilities: tuple[Capability, ...]) -> tuple[Detail, ...]:
    """Return the capabilities of a function with what is in them, in their order. Raises nothing.

    `capabilities` are those that were found in `config`.
    """
    port_type = None
    if (found := find_capability(capabilities, EXPRESS)) is not None:
        flags = config.u16(found.offset + 2)
        port_type = None if flags is None else flags >> 4 & 0xF
    return tuple(_detail(config, each, port_type) for each in capabilities)


def _detail(config: ConfigSpace, capability: Capability, port_type: int | None) -> Detail:
    structure = STRUCTURES.get((capability.extended, capability.id))
    if structure is None:
        return Detail(capability, None)
    view = View(config, capability.offset, capability.extended, capability.version, port_type)
    return Detail(capability, decode(structure, view))


def value_of(details: tuple[Detail, ...], capability: int, register: str, field: str) -> Value:
    """Return one field of the first capability of the standard list with this id, by the keys of JSON.

    Return None if the capability, the register or the field is not there or was not read.
    """
    for each in details:
        if each.capability.id == capability and not each.capability.extended:
            found = (each.json or {}).get(register)
            return found.get(field) if isinstance(found, dict) else None
    return None
