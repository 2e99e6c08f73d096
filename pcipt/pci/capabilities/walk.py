"""Walk the two capability lists of a function. Nothing in them is trusted: a device can hold any pointers.

A list ends at a null pointer. A list is damaged if one of its pointers was followed before (a loop), points
into the header, points to all ones (no register answers), or leads beyond the bytes that were read. The walk
then ends with a finding, and the capabilities before the damage are kept. Exception: if exactly 64 or 256
bytes were read, a pointer that leads beyond them ends the walk without a finding. An unknown capability id is
kept as a number.

Source: PCI Local Bus 3.0 §6.7; PCI Express Base 6.0 §7.6 (extended).
"""

import functools

from pcipt import values as attrs
from pcipt.pci.capabilities.names import EXTENDED_NAMES, STANDARD_NAMES
from pcipt.pci.config import (
    HEADER_SIZE,
    LEGACY_SIZE,
    STATUS_CAPABILITIES,
    ConfigSpace,
    HeaderType,
)
from pcipt.pci.finding import Finding

_NOTHING_ANSWERS = "where nothing answers"
_ALL_ONES = 0xFFFF_FFFF


@attrs.frozen
class Capability:
    """One capability structure in config space: its id, its byte offset, and which of the two lists holds it.

    `extended` is True for the list from offset 0x100 on. `version` is 0 in the standard list, which has no
    versions.
    """

    id: int
    offset: int
    extended: bool
    version: int = 0

    @property
    def name(self) -> str:
        """Return the name of the capability, or "Unknown" if the id is not in the tables."""
        names = EXTENDED_NAMES if self.extended else STANDARD_NAMES
        return names.get(self.id, "Unknown")


# Many functions have the same capabilities at the same offsets; equal values share one object.
_capability = functools.lru_cache(maxsize=4096)(Capability)


@functools.lru_cache(maxsize=1024)
def _shared(capabilities: tuple[Capability, ...]) -> tuple[Capability, ...]:
    """Return the capabilities; for equal ones it is the same object."""
    return capabilities


Walk = tuple[tuple[Capability, ...], tuple[Finding, ...]]


def walk_capabilities(config: ConfigSpace) -> Walk:
    """Return all capabilities, and findings about damaged lists. Damage raises nothing.

    Shape:  the standard list, then the extended list, each in the order of its pointers. The standard list is
            empty if the status register shows no list, or if the header has an unknown type. The extended
            list is read only if `config` has more than 256 bytes.
    """
    standard, bad = _walk_standard(config)
    if len(config) <= LEGACY_SIZE:
        return _shared(standard), bad
    extended, worse = _walk_extended(config)
    return _shared(standard + extended), bad + worse


def _walk_standard(config: ConfigSpace) -> Walk:
    """Return the standard capability list, and at most one finding about damage.

    The list is empty, without a finding, if the status register was not read or shows no list, or if the
    header type is unknown.
    """
    status, header = config.u16(0x06), config.header
    if status is None or not status & STATUS_CAPABILITIES or header is HeaderType.UNKNOWN:
        return (), ()
    found: list[Capability] = []
    seen: set[int] = set()
    start = config.u8(0x14 if header is HeaderType.CARDBUS else 0x34)
    # PCI Local Bus 3.0 §6.7: the two low bits of a pointer are reserved and must be masked.
    offset = (start or 0) & 0xFC
    while offset:
        if offset < HEADER_SIZE:
            return tuple(found), _damaged_list(
                "capability-pointer", f"points at {offset:#x}, into the header"
            )
        if offset in seen:
            return tuple(found), _damaged_list("capability-loop", f"comes back to {offset:#x}")
        seen.add(offset)
        word = config.u16(offset)
        if word is None:
            return tuple(found), _list_too_long(config, offset)
        if word & 0xFF == 0xFF:
            return tuple(found), _damaged_list(
                "capability-pointer", f"points at {offset:#x}, {_NOTHING_ANSWERS}"
            )
        found.append(_capability(word & 0xFF, offset, False))
        offset = word >> 8 & 0xFC
    return tuple(found), ()


def _walk_extended(config: ConfigSpace) -> Walk:
    """Return the extended capability list (from offset 0x100 on), and at most one finding about damage.

    If the register at 0x100 reads zero or all ones, the list is empty and there is no finding. A later
    register that reads zero ends the list, also without a finding.
    """
    found: list[Capability] = []
    seen: set[int] = set()
    offset = LEGACY_SIZE
    while offset:
        if offset < LEGACY_SIZE:
            return tuple(found), _damaged_list(
                "capability-pointer", f"points at {offset:#x} in the extended list"
            )
        if offset in seen:
            return tuple(found), _damaged_list("capability-loop", f"comes back to {offset:#x}")
        seen.add(offset)
        header = config.u32(offset)
        if header is None:
            return tuple(found), _list_too_long(config, offset)
        if header == 0 or (header == _ALL_ONES and offset == LEGACY_SIZE):
            # Zero: no extended capabilities. All ones: no extended config space.
            break
        if header == _ALL_ONES:
            return tuple(found), _damaged_list(
                "capability-pointer", f"points at {offset:#x}, {_NOTHING_ANSWERS}"
            )
        found.append(_capability(header & 0xFFFF, offset, True, header >> 16 & 0xF))
        # PCI Express Base 6.0 §7.6.3: the two low bits of the offset are reserved and must be masked.
        offset = header >> 20 & 0xFFC
    return tuple(found), ()


def _damaged_list(code: str, what: str) -> tuple[Finding, ...]:
    """Return the finding that a capability list is damaged, as a tuple of one."""
    return (Finding(code, f"the capability list {what}; what follows is not decoded"),)


def _list_too_long(config: ConfigSpace, offset: int) -> tuple[Finding, ...]:
    """Return a finding for a list that continues at `offset`, beyond the bytes that were read, as a tuple of
    one.

    Return an empty tuple if exactly 64 or 256 bytes were read: the rest is then unknown, and nothing is
    wrong.
    """
    if len(config) in (HEADER_SIZE, LEGACY_SIZE):
        return ()  # only the header or the first 256 bytes were readable; this is normal
    return _damaged_list("config-short", f"goes on at {offset:#x}, the config space ends at {len(config):#x}")


def find_capability(
    capabilities: tuple[Capability, ...], capability_id: int, *, extended: bool = False
) -> Capability | None:
    """Return the first capability with this id in the standard list (in the extended list if `extended` is
    True), or None if there is none.
    """
    for capability in capabilities:
        if capability.id == capability_id and capability.extended == extended:
            return capability
    return None
