"""What of a function's registers never changes while it is there, and tells Xen what to trap. Pure.

Xen reads header type, class, capabilities and BARs of a function once, when it begins to handle it, and keeps
what it found. Hardware may not change them (they are read-only), but a faulty or hostile device can. Then
what is read now is not what Xen handles: an MSI-X table that the registers do not tell any more is trapped
still. From Xen 4.21 on vPCI hides from dom0 a capability that it could not set up, so a shape is taken only
when Xen handles the function.
Source: Xen drivers/vpci/header.c (init_header), msix.c (init_msix), vpci.c (vpci_init_capabilities),
        drivers/passthrough/pci.c (alloc_pdev); PCI Local Bus 3.0 §6.2; PCI Express Base 6.0 §7.5.1.
"""

import functools
from collections.abc import Iterator, Mapping

import attrs

from pcipt.pci import Finding, Frames, Function, RawFunction, Sbdf
from pcipt.pci.bars import LAYOUT
from pcipt.pci.capabilities import walk_capabilities
from pcipt.pci.config import EXTENDED_SIZE, HEADER_SIZE, LEGACY_SIZE, ConfigSpace, bar_word
from pcipt.pci.structures import MSIX, REBAR, SRIOV, decode_msix

_IO, _KIND_BITS, _WIDTH_BITS, _64_BITS = 0x1, 0xF, 0x6, 0x4
_DECIDING = (SRIOV, REBAR)  # of the extended capabilities, those by which Xen or pcipt maps pages
_BETWEEN = ", "


@attrs.frozen
class Altered:
    """A function whose shape is another one than that which Xen handles.

    `what` tells the parts that differ, in words. `pages` are those of its BARs as they were, if the service
    was started after the change and knows them from the ledger only; else empty, for its former registers are
    used then.
    """

    what: str
    pages: tuple[Frames, ...] = ()


def shape_of(raw: RawFunction) -> str | None:
    """Return the shape of a function as text, its parts divided by ", ".

    The parts are "header", "class", "BARs", "capabilities", "MSI-X" and "extended", each with its value
    behind a blank. What was not read is left out. None is returned if the function does not answer, or if
    fewer than 64 bytes were read. Of a virtual function the number of its MSI-X entries is not a part of the
    shape: Linux's file sriov_vf_msix_count changes it.
    """
    config = ConfigSpace(raw.config or b"")
    if config.answers is not True or len(config) < HEADER_SIZE:
        return None
    return _shared(
        _BETWEEN.join(f"{name} {value}" for name, value in _parts(config, virtual=raw.physfn is not None))
    )


@functools.lru_cache(maxsize=1024)
def _shared(shape: str) -> str:
    """Return a shape; for equal ones, which devices of one model have, it is the same object."""
    return shape


def changes(before: str, now: str) -> str:
    """Return in words which parts of a shape have another value `now`; "" if none has.

    A part that is missing in one of the two is not compared: it was not read.
    """
    old, new = _split(before), _split(now)
    different = [name for name in old if name in new and old[name] != new[name]]
    return "; ".join(f"{name} {new[name] or 'none'} instead of {old[name] or 'none'}" for name in different)


def doubt_of(altered: Mapping[Sbdf, Altered], function: Function) -> str | None:
    """Return why the registers of a function, or of its physical function, are not believed; else None."""
    found = altered.get(function.sbdf)
    if found is not None:
        return (
            f"its registers have changed since Xen read them, and Xen still uses the old values: {found.what}"
        )
    if function.physfn in altered:
        return "the registers of its physical function have changed since Xen read them"
    return None


def finding_of_altered(altered: Altered) -> Finding:
    """Return the finding that a function has changed what no function may change."""
    return Finding(
        "header-changed",
        f"its read-only registers have changed since Xen read them: {altered.what}. Xen still uses the old "
        "values, so pcipt does not map or announce anything for this function. Do not trust the device; "
        "remove the function in sysfs and rescan its bus, then Xen reads it again",
    )


def _parts(config: ConfigSpace, *, virtual: bool) -> Iterator[tuple[str, str]]:
    """Yield the parts of the shape of a function that answers, those that were read."""
    yield "header", f"{config.data[0x0E] & 0x7F}"
    yield "class", config.data[0x0B:0x08:-1].hex()
    yield "BARs", "/".join(_bar_kinds(config))
    if len(config) < LEGACY_SIZE:
        return
    found, _ = walk_capabilities(config)
    yield "capabilities", " ".join(f"{each.id:02x}@{each.offset:02x}" for each in found if not each.extended)
    at = next((each.offset for each in found if (each.id, each.extended) == (MSIX, False)), None)
    msix = decode_msix(config, at) if at is not None else None
    places = (msix.table, msix.pba) if msix is not None else ()
    counted = "" if virtual or msix is None else f" {msix.vectors} entries"
    yield "MSI-X", " ".join(f"BAR{each.bar}+{each.offset:x}" for each in places) + counted
    if len(config) >= EXTENDED_SIZE:
        deciding = [each for each in found if each.extended and each.id in _DECIDING]
        yield "extended", " ".join(f"{each.id:04x}@{each.offset:03x}" for each in deciding)


def _bar_kinds(config: ConfigSpace) -> Iterator[str]:
    """Yield the read-only low bits of each BAR register; the upper half of a 64-bit BAR is left out.

    Source: PCI Local Bus 3.0 §6.2.5.1.
    """
    number, count = 0, LAYOUT[config.header][1]
    while number < count:
        low = (config.u32(bar_word(number).offset) or 0) & _KIND_BITS
        yield "io" if low & _IO else f"{low:x}"
        number += 2 if not low & _IO and low & _WIDTH_BITS == _64_BITS else 1


def _split(shape: str) -> dict[str, str]:
    """Return the value of each part of a shape by the part's name."""
    pairs = (part.partition(" ") for part in shape.split(_BETWEEN))
    return {name: value for name, _, value in pairs}
