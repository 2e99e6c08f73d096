"""QEMU's edu device as a probe: it does DMA on command, and the memory is read from outside, over QMP.

Two of them: `dma` owns a reserved region, `witness` owns none. In quarantine Xen gives the owner a table of
its own that still holds its region, so only the witness, a device of dom0, shows what dom0's table has.
Source: QEMU docs/specs/edu.rst (registers: 80 source, 88 destination, 90 count, 98 command; buffer 40000);
Xen drivers/passthrough/vtd/quirks.c and iommu.c (intel_iommu_quarantine_init).
"""

from __future__ import annotations

import re

from .hardware import PART, REGIONS
from .machine import Dom0

OWNER, WITNESS = PART["dma"].sbdf, PART["witness"].sbdf
#: The region of OWNER: its address.
REGION = REGIONS[3][0] << 12
PATTERN = (0x11111111, 0x22222222, 0x33333333, 0x44444444)
BUFFER = 0x40000
TO_DEVICE, TO_MEMORY = 1, 3


def edu_transfer(sbdf: str, source: int, target: int, command: int) -> bool:
    """Have an edu device copy 16 bytes between memory and its buffer; True if it said that it ended.

    Memory decode and bus mastering are switched on first. xen-pciback resets the bus of a device that it
    binds; on a PVH dom0 vPCI drops the address that Linux writes back then, so it is written again.
    """
    import mmap
    import os
    import subprocess
    import time

    folder = f"/sys/bus/pci/devices/{sbdf}"
    with open(f"{folder}/resource", encoding="ascii") as lines:
        start = int(lines.readline().split()[0], 16)
    told = subprocess.run(["setpci", "-s", sbdf, "10.l"], check=True, capture_output=True, text=True)
    if int(told.stdout, 16) == 0:
        subprocess.run(["setpci", "-s", sbdf, f"10.l={start:x}"], check=True)
    subprocess.run(["setpci", "-s", sbdf, "COMMAND=6:6"], check=True)
    file = os.open(f"{folder}/resource0", os.O_RDWR | os.O_SYNC)
    view = mmap.mmap(file, 1 << 12, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    os.close(file)
    words = memoryview(view).cast("I")
    for register, word in ((0x80, source), (0x84, 0), (0x88, target), (0x8C, 0), (0x90, 16), (0x94, 0)):
        words[register // 4] = word
    words[0x98 // 4] = command
    end = time.monotonic() + 20
    while words[0x98 // 4] & 1 and time.monotonic() < end:
        time.sleep(0.05)
    ended = not words[0x98 // 4] & 1
    words.release()
    view.close()
    return ended


def poke(address: int, values: list[int]) -> None:
    """Write words to the machine's memory, as dom0's processor reaches it."""
    import mmap
    import os

    memory = os.open("/dev/mem", os.O_RDWR | os.O_SYNC)
    view = mmap.mmap(memory, 4096, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=address & ~4095)
    os.close(memory)
    words = memoryview(view).cast("I")
    for number, value in enumerate(values):
        words[(address & 4095) // 4 + number] = value
    words.release()
    view.close()


def memory(dom0: Dom0, address: int) -> tuple[int, ...]:
    """Read four words of the emulated machine's memory from outside."""
    told = dom0.qmp("human-monitor-command", **{"command-line": f"xp /4wx {address:#x}"})
    return tuple(int(word, 16) for word in re.findall(r"0x([0-9a-f]{8})\b", told.split(":", 1)[1]))


class Dma:
    """The two devices, each with PATTERN in its buffer: what a device writes where tells what it reaches."""

    def __init__(self, dom0: Dom0) -> None:
        self._dom0 = dom0
        self._free = dom0.fresh_places
        assert memory(dom0, REGION) in ((0, 0, 0, 0), PATTERN), "the region is used by somebody"
        dom0.call(poke, REGION, list(PATTERN))
        assert memory(dom0, REGION) == PATTERN
        for sbdf in (OWNER, WITNESS):
            self.fill(sbdf)

    def fill(self, sbdf: str) -> None:
        """Have a device read PATTERN from the region into its buffer; dom0 must have the region."""
        assert self._dom0.call(edu_transfer, sbdf, REGION, BUFFER, TO_DEVICE)

    def reaches(self, sbdf: str) -> bool:
        """Have a device write to a fresh place in the region; True if the memory has it then."""
        place = REGION + 0x100 + 0x10 * next(self._free)
        assert memory(self._dom0, place) != PATTERN
        assert self._dom0.call(edu_transfer, sbdf, BUFFER, place, TO_MEMORY)
        return memory(self._dom0, place) == PATTERN

    def reach(self) -> tuple[bool, bool]:
        """Tell whether the owner of the region, and the witness, reach it now."""
        return self.reaches(OWNER), self.reaches(WITNESS)
