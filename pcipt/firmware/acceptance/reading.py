"""One reading of a table, as Xen does it: bytes, and the rules that it meets on the way.

Behind its last byte a table reads as zeros. Xen reads there what stands in memory by chance.
"""

import struct

from pcipt import values as attrs
from pcipt.firmware.acceptance.rules import Ending, Rule
from pcipt.firmware.acpi.ivrs import IVMD_SIZE
from pcipt.pci import Finding
from pcipt.pci.requester import Vendor
from pcipt.xen.releases import Version

_CONSEQUENCES = {
    Ending.REFUSED: "Xen {versions}refuses the table and does not use {vendor}",
    Ending.HANG: "Xen {versions}does not refuse the table but hangs at boot, if it uses {vendor}",
    Ending.PANIC: "Xen {versions}does not refuse the table but panics at boot, if it uses {vendor}",
    Ending.NO_INTERRUPTS: "Xen {versions}does not remap interrupts",
}
_VENDOR_CURE = "ask the vendor for firmware"
_TO_BOOT = "until then, start Xen with iommu=no,no-intremap"


@attrs.frozen
class Place:
    """A place in a table: its signature and the byte offset of a block or entry.

    `offset` None means the table as a whole. `entry` names what is there, for example "DRHD".
    """

    table: str
    offset: int | None = None
    entry: str = ""

    def __str__(self) -> str:
        where = f"{self.table} at {self.offset:#x}" if self.offset is not None else self.table
        return f"{where} ({self.entry})" if self.entry else where


@attrs.frozen
class Said:
    """A rule that holds for the tables, with its place.

    `certain` is False if the rule depends on the version of Xen, and that is not known well enough. `text` is
    a whole sentence with place and consequence; `cure` says what helps.
    """

    rule: Rule
    place: Place
    text: str
    cure: str
    certain: bool = True

    @property
    def finding(self) -> Finding:
        """The same as a finding, whose code is the rule's name."""
        return Finding(self.rule.name, f"{self.text}; {self.cure}" if self.cure else self.text)


class EndedError(Exception):
    """Xen reads no further: the last of `Reading.said` says why."""


class Reading:
    """The bytes of a table and the rules that hold for it so far, in `said`.

    `version` is Xen's, None if it is not known. `has_regions` is True once the reader has met reserved
    memory. `missing` names registers of the machine that decide and were not given. `added_at` is the
    offset of the blocks that Xen's command line adds, None if it adds none.
    """

    def __init__(self, table: str, data: bytes, vendor: Vendor, version: Version | None) -> None:
        self.table, self.data, self.version = table, data, version
        self.said: list[Said] = []
        self.has_regions = False
        self.missing: list[str] = []
        self.added_at: int | None = None
        self._vendor = vendor

    def add(self, blocks: bytes) -> range:
        """Let blocks of one size follow the table; return their offsets."""
        self.added_at = len(self.data)
        self.data += blocks
        return range(self.added_at, len(self.data), IVMD_SIZE)

    def number(self, offset: int) -> int:
        """Return the number of an added block, from 1 on."""
        return (offset - (self.added_at or 0)) // IVMD_SIZE + 1

    def u8(self, at: int) -> int:
        return self.data[at] if at < len(self.data) else 0

    def u16(self, at: int) -> int:
        return int(struct.unpack("<H", self._bytes(at, 2))[0])

    def u32(self, at: int) -> int:
        return int(struct.unpack("<I", self._bytes(at, 4))[0])

    def u64(self, at: int) -> int:
        return int(struct.unpack("<Q", self._bytes(at, 8))[0])

    def _bytes(self, at: int, size: int) -> bytes:
        return self.data[at : at + size].ljust(size, b"\0")

    def meet(
        self, rule: Rule, offset: int | None = None, entry: str = "", *, table: str = "", **numbers: object
    ) -> None:
        """Note that a rule holds for what is at a place of the table, or of another one (`table`).

        It is passed over if this version of Xen does not follow it. If that is not known, reading goes on.
        Raises: EndedError if Xen follows the rule and ends its reading.
        """
        holds = rule.holds(self.version)
        if holds is False:
            return
        place = Place(table or self.table, offset, entry)
        vendor_cure = _VENDOR_CURE
        if offset is not None and self.added_at is not None and offset >= self.added_at:
            place = Place("Xen's command line", None, f"ivmd=, region {self.number(offset)}")
            vendor_cure = "correct the option ivmd="
        if any(each.rule is rule and each.place == place for each in self.said):
            return
        versions = f"{rule.versions} " if holds is None else ""
        consequence = _CONSEQUENCES[rule.ending].format(versions=versions, vendor=self._vendor.value)
        text = f"{place}: {rule.text.format(**numbers)}: {consequence}"
        cure = rule.cure.format(**numbers)
        cure = f"{vendor_cure}; or {cure}" if cure else vendor_cure
        cure += f"; {_TO_BOOT}" if rule.ending in (Ending.HANG, Ending.PANIC) else ""
        self.said.append(Said(rule, place, text, cure, holds is True))
        if holds and rule.ending is not Ending.NO_INTERRUPTS:
            raise EndedError
