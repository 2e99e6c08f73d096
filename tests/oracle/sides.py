"""The two sides of a comparison: Xen's own code in a library, and the simulated Xen; both give one state."""

import ctypes
import itertools
import struct

from pcipt.pci import Frames, Gfn
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe
from tests.oracle.machines import DENIED, RAM

LOW = (0x9F, 0x61)  # dom0's own pages below 1 MiB: first, count
READ = range(0, 0x50, 4)  # offsets that dom0 reads after each step
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
        lib, room = self.lib, (ctypes.c_ulong * 8192)()
        if lib.o_panicked() or lib.o_crashed() or lib.o_lost_ram():
            return {"down": True}
        count = lib.o_mapped(room, 4096)
        pairs = [(room[2 * i], room[2 * i + 1]) for i in range(count)]
        out = {
            "mapped": [pair for pair in pairs if pair[0] >= 0x100],
            "low": [page for first, n in pairs if first < 0x100 for page in range(first, first + n)],
            "ignored": self.ignored,
        }
        for address, spec in self.specs.items():
            buffer = (ctypes.c_uint8 * 4096)()
            length = lib.o_hw(spec.number, buffer)
            out["hw", address] = bytes(buffer[:length])
            out["traps", address] = bool(lib.o_traps(spec.number))
            out["read", address] = b"".join(struct.pack("<I", lib.o_read(spec.number, at, 4)) for at in READ)
            out["bars", address], out["flags", address] = self._bars(spec)
        return out

    def _bars(self, spec):
        """Give vPCI's BARs, number to (address, size, enabled), and its flags; (None, None) without vPCI."""
        bars, rom_enabled, mapped = {}, None, None
        for index in range(7):
            address, size, flags = ctypes.c_uint64(), ctypes.c_uint64(), ctypes.c_int()
            where = (ctypes.byref(address), ctypes.byref(size), ctypes.byref(flags))
            kind = self.lib.o_bar(spec.number, index, *where)
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
            reads = (xen.vpci.read(spec.sbdf, at, 4) for at in READ)
            out["read", address] = b"".join(struct.pack("<I", value) for value in reads)
            out["bars", address] = handlers and {
                bar.index: (bar.address, bar.size, bar.enabled) for bar in handlers.bars
            }
            out["flags", address] = handlers and (handlers.rom_enabled, handlers.mapped)
        return out

    def trapped(self, pages):
        return [page for page in pages if self.xen.vpci.holes(Frames(Gfn(page), 1))]


def differences(one, other, specs):
    """Give (what, of one side, of the other) of everything in which the two sides differ."""
    left, right = one.state(), other.state()
    if "down" in left or "down" in right:
        return [] if left == right else [("down", left.get("down", False), right.get("down", False))]
    found = [(key, left[key], right[key]) for key in left if left[key] != right[key]]
    pages = {
        page
        for spec, state in itertools.product(specs, (left, right))
        for page in spec.table_pages(state["bars", spec.address])
    }
    trapped = [side.trapped(sorted(pages)) for side in (one, other)]
    return found + ([("trapped", *trapped)] if trapped[0] != trapped[1] else [])
