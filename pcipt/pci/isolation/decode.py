"""Decode the registers of a function that concern isolation: ACS, phantom functions, its own resets.

A structure that was not read completely counts as absent, except that `resets` is None if the capability list
itself was not read. So a caller must ask how much of config space was read before it concludes that ACS is
absent.
"""

import functools

from pcipt import values as attrs
from pcipt.pci.capabilities import Capability, find_capability
from pcipt.pci.config import HEADER_SIZE, ConfigSpace
from pcipt.pci.isolation.resets import reset_ways
from pcipt.pci.structures import ACS, EXPRESS

_MULTIFUNCTION = 0x80

# bit of the ACS capability and control registers: what the control does
ACS_BITS: dict[int, str] = {
    0x01: "source validation",
    0x02: "translation blocking",
    0x04: "request redirect",
    0x08: "completion redirect",
    0x10: "upstream forwarding",
    0x20: "egress control",
    0x40: "direct translated requests",
}
REDIRECTING = 0x1D  # source validation, request and completion redirect, upstream forwarding


@attrs.frozen
class Acs:
    """The ACS structure: the controls that the function has (`capable`), and those that are on (`enabled`).

    Both are bits of `ACS_BITS`. `wide` is the word after the control register, which the specification does
    not define. The root ports of some Intel chipsets have their control register there.
    """

    capable: int
    enabled: int
    wide: int = 0

    def missing(self, wanted: int = REDIRECTING, *, wide: bool = False) -> int:
        """Return the bits of `wanted` that the function has and that are off. `wide` takes the control
        register from `wide`.
        """
        return wanted & self.capable & ~(self.wide if wide else self.enabled)


@attrs.frozen
class Isolation:
    """Registers of one function that decide whether it can be separated from its neighbours.

    `multifunction` is bit 7 of the header type. `acs` is None if the function has no ACS, and if its extended
    config space was not read. `phantom` is the number of function number bits (0 to 3) that the function
    claims for phantom functions: it sends requests with these bits set to any value. `resets` are the ways to
    reset this function alone, in Linux's words and order (flr, af_flr, pm); None if the capabilities were not
    read.
    """

    multifunction: bool
    acs: Acs | None = None
    phantom: int = 0
    resets: tuple[str, ...] | None = None

    @property
    def stride(self) -> int:
        """Return the distance of phantom functions: 4, 2 or 1; 0 if there are none."""
        return 8 >> self.phantom if self.phantom else 0


_isolation = functools.lru_cache(maxsize=1024)(Isolation)  # devices of the same model have equal values


def decode_isolation(config: ConfigSpace, capabilities: tuple[Capability, ...]) -> Isolation | None:
    """Return the registers about isolation; None if the header type was not read.

    `capabilities` are those of `config`, as `walk_capabilities` returns them.
    """
    header = config.u8(0x0E)
    if header is None:
        return None
    express = find_capability(capabilities, EXPRESS)
    acs = find_capability(capabilities, ACS, extended=True)
    device = config.u32(express.offset + 4) if express is not None else None
    return _isolation(
        bool(header & _MULTIFUNCTION),
        _acs(config, acs.offset) if acs is not None else None,
        (device or 0) >> 3 & 3,
        reset_ways(config, capabilities) if len(config) > HEADER_SIZE else None,
    )


def _acs(config: ConfigSpace, offset: int) -> Acs | None:
    """Return the ACS structure at `offset`, or None if it was not read completely."""
    capable, enabled = config.u16(offset + 4), config.u16(offset + 6)
    if capable is None or enabled is None:
        return None
    return Acs(capable & 0x7F, enabled & 0x7F, (config.u16(offset + 8) or 0) & 0x7F)
