"""Facts about a domain that its ACPI tables do not contain.

If a fact is unknown (None), the rules that need it are not checked.
"""

from pcipt import values as attrs
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.xen.releases import Version


@attrs.frozen
class Facts:
    """Facts about a domain that its tables do not contain; None means unknown.

    `vga` is True if the machine has a VGA-compatible function. `io_apic` is True if the guest is meant to
    have an IO-APIC. `memory` is the domain's memory map as `flatten_map` returns it. `xen` is the version of
    the Xen that made the domain.
    """

    vcpus: int | None = None
    vga: bool | None = None
    io_apic: bool = False
    memory: tuple[MemoryEntry, ...] | None = None
    xen: Version | None = None
