"""Decode accesses to the ports 0xcf8/0xcfc and to ECAM into configuration accesses, with the decoder in C.

One call of the decoder (csrc/) handles a whole buffer, and Python values are made only if somebody iterates
over a batch. A damaged record is skipped. The decoder then also forgets CONFIG_ADDRESS (the register at port
0xcf8), because the damaged record may have been the one that wrote it.
"""

import struct
from collections.abc import Iterator, Sequence

import attrs

from pcipt._decode import ffi, lib
from pcipt.errors import InputError
from pcipt.pci import sbdf_from_devfn
from pcipt.pci.write import ConfigRead, ConfigWrite, EcamRegion, Lost, Writer

ACCESS = struct.Struct("<QQIHBB")  # n, address, value, vCPU, size, flags: docs/ports-bin.md
CONFIG = struct.Struct("<QIHBBHHBBxx")  # n, value, segment, bus, devfn, offset, vCPU, size, flags
_FLAGS_AT = CONFIG.size - 3

WRITE, ECAM, LOST, NO_VCPU = lib.PCIPT_WRITE, lib.PCIPT_ECAM, lib.PCIPT_LOST, lib.PCIPT_NO_VCPU
BATCH = 16384  # entries; the input and output of one call fit into a core's cache


@attrs.frozen
class LatchOptions:
    """Options of `PortDecoder`.

    `per_vcpu`: keep one CONFIG_ADDRESS for each vCPU (at most 1024) instead of one for the domain. `amd`: use
    bits 27:24 of CONFIG_ADDRESS as bits 11:8 of the register offset. `reads`: report reads too, not only
    writes. `regions`: the known ECAM regions, at most 16. `guess_ecam`: if there are no regions, take the
    aligned 256 MiB around the first ECAM access as the region of segment 0.
    """

    per_vcpu: bool = False
    amd: bool = False
    reads: bool = False
    regions: Sequence[EcamRegion] = ()
    guess_ecam: bool = False


@attrs.frozen
class Batch:
    """Decoded accesses in the binary form of the C decoder. Iteration makes one Python value for each, in
    their order: a `ConfigWrite`, a `ConfigRead` or a `Lost`.

    `damaged` holds the index of the damaged input record, or nothing if no record is damaged. The first
    record given to the decoder has index 0. A batch has at most one damaged record, which comes after all
    accesses of the batch.
    """

    data: bytes
    damaged: tuple[int, ...] = ()

    def __len__(self) -> int:
        """Return the number of decoded accesses and losses."""
        return len(self.data) // CONFIG.size

    def __iter__(self) -> Iterator[ConfigWrite | ConfigRead | Lost]:
        for n, value, segment, bus, devfn, offset, vcpu, size, flags in CONFIG.iter_unpack(self.data):
            if flags & LOST:
                yield Lost(value or None)
                continue
            sbdf = sbdf_from_devfn(segment, bus, devfn)
            if flags & WRITE:
                who = None if vcpu == NO_VCPU else _writer(vcpu)
                yield ConfigWrite(sbdf, offset, size or None, value, None, who, n)
            else:
                yield ConfigRead(sbdf, offset, size or None, value, n)


class PortDecoder:
    """A decoder for the accesses of one recording or source.

    It keeps CONFIG_ADDRESS between calls. This is the register at port 0xcf8 that selects the function and
    the register for the data ports 0xcfc to 0xcff.
    Raises: InputError if one of the `regions` is impossible, or if there are more than 16.
    """

    def __init__(self, options: LatchOptions | None = None) -> None:
        options = options or LatchOptions()
        self._ports = ffi.new("struct pcipt_ports *")
        self._out = ffi.new("struct pcipt_config[]", BATCH)
        self._counts = ffi.new("size_t[2]")
        self._seen = 0
        lib.pcipt_ports_init(
            self._ports,
            lib.PCIPT_OPT_PER_VCPU * options.per_vcpu
            | lib.PCIPT_OPT_AMD * options.amd
            | lib.PCIPT_OPT_READS * options.reads
            | lib.PCIPT_OPT_GUESS_ECAM * options.guess_ecam,
        )
        for region in options.regions:
            self._add_region(region)

    def _add_region(self, region: EcamRegion) -> None:
        """Add one ECAM region to the C decoder.

        Raises: InputError if it is impossible or if the decoder already has 16 regions.
        """
        fits = 0 <= region.base < 1 << 64 and 0 <= region.segment <= 0xFFFF
        fits = fits and 0 <= region.start_bus <= 0xFF and 0 <= region.end_bus <= 0xFF
        if not fits or lib.pcipt_ports_region(
            self._ports, region.base, region.segment, region.start_bus, region.end_bus
        ):
            raise InputError(f"ECAM {region.base:#x}", "is no possible region, or one too many")

    @property
    def records(self) -> int:
        """Return the number of input records decoded so far, damaged records included."""
        return self._seen

    @property
    def unknown(self) -> int:
        """Return the number of accesses to the data ports (0xcfc to 0xcff) while CONFIG_ADDRESS was not
        known.

        Nobody can know to which function such an access went, so `decode` does not yield it.
        """
        count: int = self._ports.unknown
        return count

    @property
    def outside(self) -> int:
        """Return the number of ECAM accesses outside of all regions. `decode` does not yield them."""
        count: int = self._ports.outside
        return count

    def forget(self) -> None:
        """Forget CONFIG_ADDRESS of all vCPUs. Accesses to the data ports are then counted by `unknown` until
        CONFIG_ADDRESS is written again.

        Call this after records were lost, because a lost record may have written CONFIG_ADDRESS. `decode`
        forgets by itself in two cases. At a damaged record, it forgets for all vCPUs. At a record that marks
        a loss, it forgets for the vCPU of this record (for all if `per_vcpu` is off or the record has no
        vCPU).
        """
        for vcpu in (0, NO_VCPU):
            lib.pcipt_ports_forget(self._ports, vcpu)

    def decode(self, records: bytes | bytearray | memoryview) -> Iterator[Batch]:
        """Yield batches of the configuration accesses that the binary records (`ACCESS`) mean, in the order
        of the records.

        Nothing is decoded until somebody iterates, and the iteration must reach the end before the next call.
        Records may be given in several calls, cut between any two. Bytes after the last complete record are
        ignored.

        Records without a configuration access give nothing: writes of CONFIG_ADDRESS, other ports, reads if
        `reads` is off, and the accesses that `unknown` and `outside` count. An access across the end of a
        32-bit register gives one access for each part. A damaged record raises nothing: it is skipped, and
        its index is in `damaged` of the batch.
        """
        size = ACCESS.size
        view = memoryview(records)
        count = len(view) // size
        data = ffi.from_buffer("struct pcipt_access[]", view[: count * size])
        at = 0
        while at < count:
            result = lib.pcipt_ports_decode(
                self._ports, data + at, count - at, self._out, BATCH, self._counts, self._counts + 1
            )
            used, made = self._counts[0], self._counts[1]
            at += used
            self._seen += used
            damaged: tuple[int, ...] = ()
            if result:
                damaged = (self._seen,)
                self.forget()
                at += 1
                self._seen += 1
            if made or damaged:
                yield Batch(bytes(ffi.buffer(self._out, made * CONFIG.size)), damaged)


_WRITERS: dict[int, Writer] = {}


def _writer(vcpu: int) -> Writer:
    """Return the `Writer` for a vCPU. Each is made once and kept; there are at most 65535."""
    found = _WRITERS.get(vcpu)
    if found is None:
        found = _WRITERS[vcpu] = Writer(vcpu=vcpu)
    return found
