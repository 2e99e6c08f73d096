"""The latch decoder once more, in plain Python: the oracle of the one in csrc/, and a peer in bench/."""

from collections.abc import Iterable, Iterator, Sequence

WRITE, ECAM, LOST = 1, 2, 0x80
NO_VCPU = 0xFFFF
ENABLE = 0x8000_0000

# n, address, value, vCPU, size, flags -> n, value, segment, bus, devfn, offset, vCPU, size, flags
Access = tuple[int, int, int, int, int, int]
Decoded = tuple[int, int, int, int, int, int, int, int, int]


class Twin:
    def __init__(
        self,
        *,
        per_vcpu: bool = False,
        amd: bool = False,
        reads: bool = False,
        regions: Sequence[tuple[int, int, int, int]] = (),
    ) -> None:
        self.per_vcpu, self.amd, self.reads, self.regions = per_vcpu, amd, reads, regions
        self.latches: dict[int, int] = {}
        self.unknown = self.outside = 0

    def decode(self, accesses: Iterable[Access]) -> Iterator[Decoded]:  # noqa: C901  # the rules, side by side
        for n, address, value, vcpu, size, flags in accesses:
            key = vcpu if self.per_vcpu else 0
            if flags & LOST:
                if self.per_vcpu and vcpu < 1024:
                    self.latches.pop(vcpu, None)
                else:
                    self.latches.clear()
                yield (n, value, 0, 0, 0, 0, vcpu, 0, flags)
            elif flags & ECAM:
                if flags & WRITE or self.reads:
                    yield from self._ecam(n, address, value, vcpu, size, flags)
            elif 0xCFC <= address <= 0xCFF:
                if flags & WRITE or self.reads:
                    yield from self._data(key, n, address, value, vcpu, size, flags)
            elif flags & WRITE and address == 0xCF8 and (not self.per_vcpu or vcpu < 1024):
                if size == 4 or (size == 0 and value & ENABLE):
                    self.latches[key] = value
                elif size == 0:
                    self.latches.pop(key, None)

    def _data(self, key, n, address, value, vcpu, size, flags):
        latched = self.latches.get(key)
        if latched is None:
            self.unknown += 1
        elif latched & ENABLE:
            register = (latched & 0xFC) + (address & 3)
            if self.amd:
                register |= latched >> 16 & 0xF00
            last = address & 3 | ~3 & register | 3  # the register's last byte; 0xd00 is another port
            bytes_left = min(size, last - register + 1) if size else 0
            yield from pieces(n, 0, latched >> 8 & 0xFFFF, register, value, bytes_left, vcpu, flags)

    def _ecam(self, n, address, value, vcpu, size, flags):
        for base, segment, first, last in self.regions:
            place = address - base
            if place >= 0 and first <= place >> 20 <= last:
                function, register = place >> 12, place & 0xFFF
                bytes_left = min(size, 0x1000 - register)
                yield from pieces(n, segment, function, register, value, bytes_left, vcpu, flags)
                return
        self.outside += 1


def pieces(n, segment, function, register, value, size, vcpu, flags):
    """Cut at 32-bit registers; three bytes are two and one."""
    if not size:
        yield (n, value, segment, function >> 8, function & 0xFF, register, vcpu, 0, flags)
    while size:
        count = min(size, 4 - register % 4)
        count = 2 if count == 3 else count
        share = value & (1 << 8 * count) - 1
        yield (n, share, segment, function >> 8, function & 0xFF, register, vcpu, count, flags)
        register, size, value = register + count, size - count, value >> 8 * count
