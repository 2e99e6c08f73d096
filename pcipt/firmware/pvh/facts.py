"""What is known of a domain beside its tables; None is unknown, and the rules that need it do without."""

import attrs

from pcipt.firmware.memory_map import MemoryEntry


@attrs.frozen
class Facts:
    """`vga` tells whether the machine has a VGA-compatible function, `memory` is its flat memory map."""

    vcpus: int | None = None
    vga: bool | None = None
    io_apic: bool = False
    memory: tuple[MemoryEntry, ...] | None = None
