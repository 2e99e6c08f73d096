"""Decode Xen's raw trace records into configuration accesses of unknown width, for a PVH dom0.

The C decoder of csrc/ finds the port and ECAM accesses in the records and combines the writes of 0xcf8 and
0xcfc. A trace is in order only within one physical CPU, so CONFIG_ADDRESS is kept for each CPU. If the trace
also has scheduling records, accesses of other domains are left out.

Source: Xen public/trace.h; tools/xentrace/xentrace.c (CPU_CHANGE).
"""

import struct
from collections.abc import Iterator, Sequence

import attrs

from pcipt._decode import ffi, lib
from pcipt.pci.write import EcamRegion
from pcipt.watch.ports import ACCESS, BATCH, Batch, LatchOptions, PortDecoder

CPU_CHANGE = struct.pack("<I", 0x2001_F003)
MAX_RECORD = 40  # bytes: header, time stamp, seven words
_CLASSES = 0x0FFF_0000


@attrs.frozen
class Damage:
    """A damaged record: `size` bytes at the byte offset `position` of the stream."""

    position: int
    size: int


class TraceDecoder:
    """A decoder for the trace records of one file or buffer. The bytes may be given in pieces cut anywhere.

    `domain` is the domain whose accesses are decoded. If the trace has no scheduling records, the accesses of
    all HVM and PVH domains are decoded. `amd`: use bits 27:24 of CONFIG_ADDRESS as bits 11:8 of the register
    offset. `reads`: yield reads too. `regions` are the ECAM regions; without them, no ECAM access is decoded.
    Raises: InputError if one of the `regions` is impossible, or if there are more than 16.
    """

    def __init__(
        self, regions: Sequence[EcamRegion] = (), *, domain: int = 0, amd: bool = False, reads: bool = False
    ) -> None:
        options = LatchOptions(per_vcpu=True, amd=amd, reads=reads, regions=regions)
        self._ports = PortDecoder(options)
        self._trace = ffi.new("struct pcipt_trace *")
        self._records = ffi.new("struct pcipt_access[]", BATCH)
        self._counts = ffi.new("size_t[2]")
        self._rest = b""
        self._position = 0
        start = min((region.first for region in regions), default=0)
        end = max((region.end for region in regions), default=0)
        lib.pcipt_trace_init(self._trace, domain, start, end)

    @property
    def records(self) -> int:
        """Return the number of complete trace records of every kind seen so far, without damaged records."""
        count: int = self._trace.records
        return count

    @property
    def foreign(self) -> int:
        """Return the number of accesses that `decode` does not yield because other domains made them."""
        count: int = self._trace.foreign
        return count

    @property
    def unknown(self) -> int:
        """Return the number of accesses to the data ports (0xcfc to 0xcff) while CONFIG_ADDRESS was not
        known. `decode` does not yield them.
        """
        return self._ports.unknown

    def decode(self, data: bytes | bytearray | memoryview) -> Iterator[Batch | Damage]:
        """Decode the complete records in the next piece of the stream. Yield batches of accesses and losses,
        and a `Damage` for each damaged record, in the order of the stream.

        An incomplete record at the end is kept, and completed by the next piece. Nothing is decoded until
        somebody iterates, and the iteration must reach the end before the next call. After a damaged record,
        CONFIG_ADDRESS (the register at port 0xcf8) is unknown until it is written again.
        """
        piece = self._rest + bytes(data) if self._rest else data
        held = ffi.from_buffer("uint8_t[]", piece)
        length, at = len(piece), 0
        while length - at >= 4:
            result = lib.pcipt_trace_decode(
                self._trace, held + at, length - at, self._records, BATCH, self._counts, self._counts + 1
            )
            used, made = self._counts[0], self._counts[1]
            at += used
            if made:
                yield from self._ports.decode(ffi.buffer(self._records, made * ACCESS.size))
            if result:
                size = lib.pcipt_trace_length(int.from_bytes(bytes(piece[at : at + 4]), "little"))
                if size > length - at:
                    break
                self._ports.forget()
                yield Damage(self._position + at, size)
                at += size
            elif not made and not used:
                break
        self._rest = bytes(piece[at:])
        self._position += at

    def finish(self) -> Damage | None:
        """Return the incomplete record at the end of the stream as a `Damage`, or None if there is none."""
        return Damage(self._position, len(self._rest)) if self._rest else None


def looks_like_trace(head: bytes) -> bool:
    """Return True if `head` can be the beginning of an xentrace file. Return False if it has fewer than 4
    bytes.

    `head` can be the beginning if it starts with a CPU_CHANGE record. Otherwise its first two records must
    have valid classes (only the first, if `head` ends before the second).
    """
    if head.startswith(CPU_CHANGE):
        return True
    at = seen = 0
    while at + 4 <= len(head) and seen < 2:
        header = int.from_bytes(head[at : at + 4], "little")
        kind = header & _CLASSES
        if kind == 0 or kind & (kind - 1):
            return False
        at += lib.pcipt_trace_length(header)
        seen += 1
    return seen > 0
