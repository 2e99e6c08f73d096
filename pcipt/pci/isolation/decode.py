"""Decode the registers of a function that concern isolation: ACS, phantom functions, its own resets.

A structure that was not read completely counts as absent, except that `resets` is None if the capability list
itself was not read. So a caller must ask how much of config space was read before it concludes that ACS is
absent.
"""

import functools

import attrs

from pcipt.pci.capabilities import Capability
from pcipt.pci.config import HEADER_SIZE, ConfigSpace
from pcipt.pci.isolation.resets import reset_ways

_EXPRESS, _ACS = 0x10, 0x000D
_MULTIFUNCTION = 0x80

# bit of the ACS capability and control registers: lspci's word, and what the control does
ACS_BITS: dict[int, tuple[str, str]] = {
    0x01: ("SrcValid", "source validation"),
    0x02: ("TransBlk", "translation blocking"),
    0x04: ("ReqRedir", "request redirect"),
    0x08: ("CmpltRedir", "completion redirect"),
    0x10: ("UpstreamFwd", "upstream forwarding"),
    0x20: ("EgressCtrl", "egress control"),
    0x40: ("DirectTrans", "direct translated requests"),
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
    place = {(each.extended, each.id): each.offset for each in reversed(capabilities)}
    device = _u32(config, place.get((False, _EXPRESS)), 4)
    acs_at = place.get((True, _ACS))
    return _isolation(
        bool(header & _MULTIFUNCTION),
        _acs(config, acs_at) if acs_at is not None else None,
        device >> 3 & 3,
        reset_ways(config, capabilities) if len(config) > HEADER_SIZE else None,
    )


def _acs(config: ConfigSpace, offset: int) -> Acs | None:
    """Return the ACS structure at `offset`, or None if it was not read completely."""
    capable, enabled = config.u16(offset + 4), config.u16(offset + 6)
    if capable is None or enabled is None:
        return None
    return Acs(capable & 0x7F, enabled & 0x7F, (config.u16(offset + 8) or 0) & 0x7F)


def _u32(config: ConfigSpace, offset: int | None, more: int) -> int:
    """Return the 32-bit register at `offset` + `more`; 0 if `offset` is None or it was not read."""
    return 0 if offset is None else config.u32(offset + more) or 0
