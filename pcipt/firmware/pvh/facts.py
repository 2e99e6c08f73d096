"""Facts about a domain that its ACPI tables do not contain.

A rule that needs an unknown fact (None) is not checked.
"""

import attrs

from pcipt.firmware.memory_map import MemoryEntry


@attrs.frozen
class Facts:
    """What is known of a domain beside its tables; None means unknown.

    `vga` is True if the machine has a VGA-compatible function. `io_apic` is True if the guest is meant to
    have an IO-APIC. `memory` is the domain's memory map, sorted and without overlaps.
    """

    vcpus: int | None = None
    vga: bool | None = None
    io_apic: bool = False
    memory: tuple[MemoryEntry, ...] | None = None
