"""The two sides of a comparison: Xen's own code in a library, and the simulated Xen; both give one state."""

import ctypes
import itertools

from pcipt.pci import Frames, Gfn
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe
from tests.oracle.machines import DENIED, RAM

LOW = (0x9F, 0x61)  # dom0's own pages below 1 MiB: first, count
READ = 0x50  # bytes that dom0 reads after each step
MAPPABLE = {2: False, 3: False, 5: True}  # Xen's kinds of BARs that are mapped: is it the ROM?


class XenCode:
    """Xen's own code, in the library that `build` made."""

    def __init__(self, path):
        self.lib = lib = ctypes.CDLL(str(path))
        lib.o_read.restype = ctypes.c_uint32
        lib.o_lost_ram.restype = ctypes.c_ulong
        lib.o_last_assert.restype = lib.o_log.restype = ctypes.c_char_p
        lib.o_e820.argtypes = [ctypes.c_uint64, ctypes.c_uint64]
        lib.o_deny.argtypes = lib.o_map.argtypes = lib.o_unmap.argtypes = [ctypes.c_ulong, ctypes.c_ulong]
        lib.o_fill.argtypes = [ctypes.c_ulong, ctypes.c_ulong, ctypes.c_int, ctypes.c_ulong]
        lib.o_trapped_page.argtypes = [ctypes.c_ulong]
        self._room = (ctypes.c_ulong * 8192)()
        self._registers, self._seen = ctypes.create_string_buffer(4096), ctypes.create_string_buffer(READ)

    def start(self, specs):
        """Boot a machine, as the builder of a PVH dom0 does."""
        lib = self.lib
        lib.o_reset()
        lib.o_e820(0, 0x10_0000)
        lib.o_e820(*RAM)
        for first, last in DENIED:
            lib.o_deny(first, last)
        lib.o_fill(0, LOW[0], 0, 0x200_0000)
        lib.o_fill(*LOW, 5, LOW[0])
        lib.o_fill(RAM[0] >> 12, RAM[1] >> 12, 0, 0x100_0000)
        self.specs = {spec.address: spec for spec in specs}
        for spec in specs:
            data, mask, clear = spec.build()
            lib.o_plug(spec.number, data, mask, clear, len(data))
        lib.o_boot(1)
        for spec in specs:
            lib.o_assign(spec.number)
        lib.o_boot(0)
        lib.o_log_clear()
        self.ignored = 0

    def apply(self, op):
        """Do one operation; give the answer of an add, else None."""
        kind, address, *rest = op
        spec, lib, answer = self.specs[address], self.lib, None
        lib.o_log_clear()
        if kind == "w":
            lib.o_write(spec.number, *rest)
        elif kind == "reset":
            for at, value in spec.after_reset().items():
                lib.o_poke(spec.number, at, value)
        elif kind == "remove":
            lib.o_deassign(spec.number)
        else:
            answer = lib.o_assign(spec.number) if not lib.o_traps(spec.number) else 0
        self.ignored += lib.o_log().count(b"write while mapped")
        return answer

    def state(self):
        """Give everything that is compared; {"down": True} where the host is down."""
        lib, room = self.lib, self._room
        if lib.o_panicked() or lib.o_crashed() or lib.o_lost_ram():
            return {"down": True}
        count = lib.o_mapped(room, len(room) // 2)
        numbers = room[: 2 * count]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        out = {
            "mapped": [pair for pair in pairs if pair[0] >= 0x100],
            "low": [page for first, n in pairs if first < 0x100 for page in range(first, first + n)],
            "ignored": self.ignored,
        }
        for address, spec in self.specs.items():
            number = spec.number
            length = lib.o_hw(number, self._registers)
            out["hw", address] = self._registers.raw[:length]
            out["traps", address] = bool(lib.o_traps(number))
            lib.o_reads(number, READ, self._seen)
            out["read", address] = self._seen.raw
            out["bars", address], out["flags", address] = self._bars(spec)
        return out

    def _bars(self, spec):
        """Give vPCI's BARs, number to (address, size, enabled), and its flags; (None, None) without vPCI."""
        bars, rom_enabled, mapped = {}, None, None
        address, size, flags = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_int()
        where = (ctypes.byref(address), ctypes.byref(size), ctypes.byref(flags))
        number = spec.number
        for index in range(7):
            kind = self.lib.o_bar(number, index, *where)
            if kind < 0:
                return None, None
            if kind in MAPPABLE:
                bars[6 if MAPPABLE[kind] else index] = (address.value, size.value, bool(flags.value & 1))
            rom_enabled, mapped = bool(flags.value & 2), bool(flags.value & 4)
        return bars, (rom_enabled, mapped)

    def trapped(self, pages):
        return [page for page in pages if self.lib.o_trapped_page(page)]


class Simulated:
    """The simulated Xen of a release, on simulated hardware."""

    def __init__(self, release):
        self._identity = XenIdentity(release, Dom0Kind.PVH)

    def start(self, specs):
        self.specs = {spec.address: spec for spec in specs}
        self.hardware = BusHardware([spec.raw() for spec in specs])
        ram = Frames(Gfn(RAM[0] >> 12), RAM[1] >> 12)
        known = [spec.sbdf for spec in specs]
        self.down = False
        try:
            self.xen = SimulatedXen(self.hardware, self._identity, memory=[ram], known=known)
        except Catastrophe:
            self.down = True

    def apply(self, op):
        kind, address, *rest = op
        spec = self.specs[address]
        try:
            if kind == "w":
                self.xen.write_config(spec.sbdf, *rest)
            elif kind == "reset":
                data = self.hardware.slot(spec.sbdf).registers.data
                for at, value in spec.after_reset().items():
                    data[at] = value
            elif kind == "remove":
                self.xen.kernel_remove(spec.sbdf)
            else:
                return self.xen.kernel_add(spec.sbdf)
        except Catastrophe:
            self.down = True
        return None

    def state(self):
        if self.down:
            return {"down": True}
        xen = self.xen
        out = {
            "mapped": [(int(span.start), span.count) for span in xen.p2m.direct()],
            "low": xen.p2m.low(),
            "ignored": xen.vpci.ignored,
        }
        for address, spec in self.specs.items():
            handlers = xen.vpci.handlers(spec.sbdf)
            out["hw", address] = self.hardware.config(spec.sbdf)
            out["traps", address] = xen.vpci.traps(spec.sbdf)
            out["read", address] = xen.vpci.read(spec.sbdf, 0, READ).to_bytes(READ, "little")
            out["bars", address] = handlers and {
                bar.index: (bar.address, bar.size, bar.enabled) for bar in handlers.bars
            }
            out["flags", address] = handlers and (handlers.rom_enabled, handlers.mapped)
        return out

    def trapped(self, pages):
        return [page for page in pages if self.xen.vpci.holes(Frames(Gfn(page), 1))]


def differences(one, other, specs):
    """Give (what, of one side, of the other) of everything in which the two differ; is Xen's host down?"""
    left, right = one.state(), other.state()
    if "down" in left or "down" in right:
        same = left == right
        downs = left.get("down", False), right.get("down", False)
        return [] if same else [("down", *downs)], downs[0]
    found = [(key, left[key], right[key]) for key in left if left[key] != right[key]]
    pages = {
        page
        for spec, state in itertools.product(specs, (left, right))
        for page in spec.table_pages(state["bars", spec.address])
    }
    trapped = [side.trapped(sorted(pages)) for side in (one, other)]
    return found + ([("trapped", *trapped)] if trapped[0] != trapped[1] else []), False
