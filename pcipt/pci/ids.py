"""What a function says it is (vendor, device, class, revision, subsystem), to Linux and in its registers.

Linux's files come first: they know a virtual function's ids (its own registers read ffff) and carry the
kernel's corrections of wrong classes. Where the hardware answers as another device, a finding names it.

Source: PCI Local Bus 3.0 §6.2.1, §6.2.4; PCI-to-PCI Bridge 1.2 §3.2.5.13 (subsystem capability).
"""

import attrs

from pcipt.pci.config import ConfigSpace, HeaderType
from pcipt.pci.finding import Finding

_NOBODY = (0xFFFF, 0xFFFF)


@attrs.frozen
class Ids:
    """Vendor, device, class (24 bits), revision, subsystem; None is unknown."""

    vendor: int | None = None
    device: int | None = None
    class_code: int | None = None
    revision: int | None = None
    subsystem_vendor: int | None = None
    subsystem_device: int | None = None

    @property
    def complete(self) -> bool:
        return (
            self.vendor is not None
            and self.device is not None
            and self.class_code is not None
            and self.revision is not None
            and self.subsystem_vendor is not None
            and self.subsystem_device is not None
        )


UNKNOWN_IDS = Ids()


def join_ids(
    linux: Ids, config: ConfigSpace, *, virtual: bool, subsystem_at: int | None
) -> tuple[Ids, tuple[Finding, ...]]:
    """Join what Linux's files and the registers say; `subsystem_at` is a bridge's subsystem capability."""
    vendor, device = config.u16(0x00), config.u16(0x02)
    drift: tuple[Finding, ...] = ()
    if (vendor, device) != (linux.vendor, linux.device) and not virtual:
        drift = _drift(linux, vendor, device)
    if linux.complete:
        return linux, drift
    class_word = config.u32(0x08)
    at = _subsystem(config.header, subsystem_at)
    return Ids(
        vendor=_first(linux.vendor, vendor),
        device=_first(linux.device, device),
        class_code=_first(linux.class_code, None if class_word is None else class_word >> 8),
        revision=_first(linux.revision, config.u8(0x08)),
        subsystem_vendor=_first(linux.subsystem_vendor, None if at is None else config.u16(at)),
        subsystem_device=_first(linux.subsystem_device, None if at is None else config.u16(at + 2)),
    ), drift


def _subsystem(header: HeaderType, capability: int | None) -> int | None:
    if header is HeaderType.ENDPOINT:
        return 0x2C
    if header is HeaderType.BRIDGE and capability is not None:
        return capability + 4
    return 0x40 if header is HeaderType.CARDBUS else None


def _first(known: int | None, read: int | None) -> int | None:
    return read if known is None else known


def _drift(linux: Ids, vendor: int | None, device: int | None) -> tuple[Finding, ...]:
    if vendor is None or device is None or linux.vendor is None or linux.device is None:
        return ()
    if (vendor, device) == _NOBODY:
        return ()  # a virtual function whose owner Linux does not name
    return (
        Finding(
            "id-drift",
            f"hardware answers {vendor:04x}:{device:04x}, Linux knows {linux.vendor:04x}:{linux.device:04x}: "
            "another device sits here now; remove and rescan it",
        ),
    )
