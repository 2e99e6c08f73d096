"""Hold the ids of a function: vendor, device, class, revision, subsystem. Join Linux's ids with the
registers.

Linux's ids are preferred: they are right for virtual functions (whose own registers read ffff), and they
contain the kernel's corrections of wrong classes. If the hardware shows another vendor or device, a finding
says so.

Source: PCI Local Bus 3.0 §6.2.1, §6.2.4; PCI-to-PCI Bridge 1.2 §3.2.5.13 (subsystem capability).
"""

from pcipt import values as attrs
from pcipt.pci.config import ConfigSpace, HeaderType
from pcipt.pci.finding import Finding

_NOBODY = (0xFFFF, 0xFFFF)


@attrs.frozen
class Ids:
    """The ids of a function; None is unknown. `class_code` has 24 bits: class, subclass, programming
    interface.
    """

    vendor: int | None = None
    device: int | None = None
    class_code: int | None = None
    revision: int | None = None
    subsystem_vendor: int | None = None
    subsystem_device: int | None = None

    @property
    def complete(self) -> bool:
        """Return True if no id is None."""
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
    """Return Linux's ids, and a finding if the hardware has another vendor or device than Linux.

    An id that Linux does not know is read from the registers; it stays None if the register was not read.
    Vendor and device of Linux and of the hardware are not compared if the function is virtual, if one of
    these four ids is unknown, or if the hardware reads ffff:ffff. `subsystem_at` is the offset of a bridge's
    subsystem capability, or None if it has none.
    """
    vendor, device = config.u16(0x00), config.u16(0x02)
    drift: tuple[Finding, ...] = ()
    if (vendor, device) != (linux.vendor, linux.device) and not virtual:
        drift = _ids_differ(linux, vendor, device)
    if linux.complete:
        return linux, drift
    class_word = config.u32(0x08)
    at = _subsystem_offset(config.header, subsystem_at)
    return Ids(
        vendor=_prefer_known(linux.vendor, vendor),
        device=_prefer_known(linux.device, device),
        class_code=_prefer_known(linux.class_code, None if class_word is None else class_word >> 8),
        revision=_prefer_known(linux.revision, config.u8(0x08)),
        subsystem_vendor=_prefer_known(linux.subsystem_vendor, None if at is None else config.u16(at)),
        subsystem_device=_prefer_known(linux.subsystem_device, None if at is None else config.u16(at + 2)),
    ), drift


def _subsystem_offset(header: HeaderType, capability: int | None) -> int | None:
    """Return the offset of the subsystem ids for this header.

    Return None if the header type is unknown, or if it is a type 1 bridge without a subsystem capability.
    `capability` is the offset of the subsystem capability, or None. Only a type 1 bridge needs it.
    """
    if header is HeaderType.ENDPOINT:
        return 0x2C
    if header is HeaderType.BRIDGE and capability is not None:
        return capability + 4
    return 0x40 if header is HeaderType.CARDBUS else None


def _prefer_known(known: int | None, read: int | None) -> int | None:
    """Return `known`, or `read` if `known` is None."""
    return read if known is None else known


def _ids_differ(linux: Ids, vendor: int | None, device: int | None) -> tuple[Finding, ...]:
    """Return the finding that vendor and device of hardware (`vendor`, `device`) and of Linux differ.

    This function does not compare them: call it only if they differ. Return an empty tuple if one of the four
    ids is unknown, or if the hardware reads ffff:ffff.
    """
    if vendor is None or device is None or linux.vendor is None or linux.device is None:
        return ()
    if (vendor, device) == _NOBODY:
        return ()  # a virtual function for which Linux names no physical function
    return (
        Finding(
            "id-drift",
            f"hardware shows {vendor:04x}:{device:04x}, but Linux has {linux.vendor:04x}:{linux.device:04x}. "
            "So another device is here now; remove the function in sysfs and rescan its bus",
        ),
    )
