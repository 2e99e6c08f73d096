"""A machine that lives: hardware whose registers act, Linux above it, Xen beside it, and the engine's daemon.

Events are what happens to a machine; each is told to the engine as the daemon would hear of it. `World` can
kill the daemon at any saving and any hypercall; it is started again at once.
"""

import struct
from functools import partial

import attrs

from pcipt.daemon.intake import Intake
from pcipt.daemon.settings import Settings
from pcipt.daemon.watcher import Watch
from pcipt.daemon.worker import Worker
from pcipt.engine.engine import Engine
from pcipt.engine.queue import Reason
from pcipt.errors import NoSuchDeviceError
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.host.iomem import MemoryReading, NamedRange
from pcipt.pci import Address, Frames, Gfn, Range, Resource, decode_machine, sbdf_from_devfn
from pcipt.pci.requester import Vendor
from pcipt.pci.write import ConfigWrite
from pcipt.remap.ignored import Intents
from pcipt.remap.life import State
from pcipt.remap.vpci.trapped import Trapped
from pcipt.xen.interface import Dom0Kind, Owner, OwnerKind, XenIdentity
from pcipt.xen.releases import ORPHAN_REMOVAL_PANICS, VPCI_BUILT_AT_ASSIGN
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import DOM0
from pcipt.xen.simulated.p2m import LAST
from pcipt.xen.simulated.registers import BRIDGE_CONTROL, SECONDARY
from tests.engine.kernel_log import Log
from tests.engine.stage import Killed, ListSource, MemoryStore, Messages, compare, work_off
from tests.firmware.reserved_tables import ivrs
from tests.xen.devices import SRIOV_AT, host_bridge
from tests.xen.truth import mapped_pages, p2m_truth, pages_of, pages_of_region, region_truth
from tests.xen.versions import full_version

RAM = Range(Address(0x10_0000), 0x1000_0000)
MMCFG = Range(Address(0xB000_0000), 0x100_0000)
COMMAND, ON = 0x04, 0x2
HEADER, BRIDGE, IN_RESET = 0x0E, 1, 0x40
VFE, MSE = 0x1, 0x8
AMD = 0x1022
COVERED = range(10)  # buses that an IOMMU unit took at boot
PAUSE = 30.0


class Linux:
    """dom0's kernel: what it believes of each function, by the address it gave it."""

    boot_id = "boot"

    def __init__(self, hardware, raws, reserved=()):
        self.hardware = hardware
        self.reserved = reserved
        self.tables = []
        self.xen = None
        self.written = 0
        self.log = Log()
        self.dead = False
        self.raws = {raw.sbdf: raw for raw in raws}

    release = "6.1.0-18-amd64"

    def addresses(self):
        return list(self.raws)

    def read_machine(self):
        return [self.read_function(sbdf) for sbdf in self.raws]

    def read_function(self, sbdf):
        raw = self.raws.get(sbdf)
        if raw is None:
            return None
        registers = self.hardware if self.xen is None else self.xen.vpci or self.hardware
        return attrs.evolve(raw, config=registers.config(sbdf) or b"\xff" * len(raw.config))

    def acpi_tables(self):
        return self.tables

    def memory(self):
        lines = [NamedRange(RAM, "System RAM"), NamedRange(MMCFG, "PCI MMCONFIG 0000 [bus 00-0f]")]
        lines += [NamedRange(region.range, "Reserved") for region in self.reserved]
        return MemoryReading(tuple(lines), (), ())

    def read_register(self, sbdf, register):
        raw = self.read_function(sbdf)
        if raw is None:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes(raw.config[register.offset :][: register.size], "little")

    def probe(self, _sbdf):
        """No driver fits."""

    def guarded_ports(self):
        """xen-pciback is not loaded."""

    def read_log(self):
        return self.log.read()

    def write_register(self, sbdf, register, value):
        if sbdf not in self.raws:
            raise NoSuchDeviceError(str(sbdf))
        if self.dead:
            raise Killed
        self.written += 1
        self.xen.write_config(sbdf, register.offset, register.size, value)


class MortalXen(SimulatedXen):
    """`die_at` kills the daemon at the n-th call that changes something, when Xen has done it.

    With `build` it says that it is a vendor's build: nobody knows what of its branch it does.
    """

    die_at = None
    changed = 0
    build = False

    @property
    def identity(self):
        identity = super().identity
        return attrs.evolve(identity, full=f"{identity.full}-vendor") if self.build else identity

    def _log(self, op, functions, result, frames=None):
        result = super()._log(op, functions, result, frames)
        self.changed += op.changes
        if op.changes and self.changed == self.die_at:
            raise Killed
        return result


def coverage_of(iommu, raws):
    """Give which functions the IOMMU units take."""
    buses = frozenset((0, bus) for bus in COVERED)
    if iommu == "vt-d":
        return Coverage(buses=buses)
    if iommu == "amd":
        return Coverage(buses=buses, vendor=Vendor.AMD)
    return Coverage(functions=frozenset(raw.sbdf for raw in raws), vendor=Vendor.AMD)


def ivrs_of(coverage):
    """Give the firmware's table that says so."""
    ranges = [(bus << 8, bus << 8 | 0xFF) for _, bus in sorted(coverage.buses)]
    ranges += [(sbdf.bus << 8 | sbdf.devfn,) * 2 for sbdf in sorted(coverage.functions)]
    entries = b"".join(struct.pack("<BHBBHB", 3, first, 0, 4, last, 0) for first, last in ranges)
    return ivrs(struct.pack("<BBH20x", 0x10, 0, 24 + len(entries)) + entries)


class World:
    def __init__(
        self,
        raws,
        *,
        dom0="pvh",
        version=(4, 17),
        settings=None,
        known=None,
        reserved=(),
        iommu="vt-d",
        build=False,
    ):
        """`iommu` is "vt-d" (units take the buses COVERED), "amd" (IVRS has an entry for each function on
        these buses) or "amd-few" (IVRS has an entry for each function that was there at boot).
        """
        if iommu != "vt-d":
            raws = [host_bridge(AMD), *raws]
            known = known if known is None else [raws[0].sbdf, *known]
        coverage = coverage_of(iommu, raws)
        self.hardware = BusHardware(raws)
        self.linux = Linux(self.hardware, raws, [region.frames for region in reserved])
        identity = XenIdentity(full_version(version), Dom0Kind(dom0))
        self.xen = MortalXen(
            self.hardware,
            identity,
            iommu=coverage,
            known=known,
            memory=[frames(RAM)],
            trapped=[frames(MMCFG)],
            reserved=reserved,
        )
        self.xen.build = build
        self.linux.xen = self.xen
        self.firmware = reserved
        self.decode_at_add = (
            0 if iommu == "amd-few" else ON
        )  # where Linux's own add may fail, an old Xen panics
        if dom0 == "pv" and coverage.vendor is Vendor.AMD:  # a PVH dom0 cannot read the table
            self.linux.tables = [ivrs_of(coverage)]
        self.source = ListSource()
        self.watch = Watch(self.source, "test", obeys=dom0 == "pv")
        self.store = MemoryStore()
        self.store.snapshot = snapshot_from_machine("boot", decode_machine(self.linux.read_machine()))
        self.settings = settings or Settings()
        self.time = 0.0
        self.pulled = set()
        self.given = set()
        self.cleared = set()
        self.engine = None
        self.start()

    def start(self):
        """Start the daemon, which may be killed again while it does so."""
        for _ in range(20):
            self.linux.dead = False
            self.linux.log.open_anew()
            self.xen.reconnect()
            try:
                self.engine = Engine(
                    self.linux, self.xen, self.store, self.settings, lambda: "2026-01-01T00:00:00Z",
                    lambda: self.time,
                )  # fmt: skip
                self.engine.memory.intents = self.watch.intents = Intents()
                self.engine.memory.trapped = self.watch.trapped = Trapped()
                self.hotplug = Messages()
                self.intake = Intake(
                    self.engine,
                    self.hotplug,
                    self.watch,
                    lambda: 0.0,
                    lambda *_what: None,
                    lambda *_what: None,
                )
                self.engine.take_messages = self.intake.take_messages
                self.engine.worker = Worker(self.engine, self.watch, lambda _scope, _report: None)
                done = compare(self.engine)
                self.time += PAUSE
                return done + work_off(self.engine)  # what vPCI has mapped is on disk now
            except Killed:
                self.linux.dead = True
        raise AssertionError("killed at every start")

    def tell(self, plugged=(), *, written=(), removed=(), doubt=False):
        """Let the daemon hear of something, and give it time to try again what failed."""
        try:
            for sbdf in plugged:
                self.hotplug.push("remove" if sbdf in removed else "change", sbdf)
            for sbdf in written:
                self.engine.add(sbdf, Reason.WRITTEN)
            if doubt:
                self.engine.add_everything(Reason.WRITTEN)
            self.intake.take_writes()
            self.intake.take_messages()
            done = work_off(self.engine)
            self.time += PAUSE
            return done + work_off(self.engine)
        except Killed:
            self.linux.dead = True
            return self.start()

    def change(self, sbdf, offset, size, value):
        """Write a register, which the daemon sees when it is told next."""
        self.xen.write_config(sbdf, offset, size, value)
        self.source.push(ConfigWrite(sbdf, offset, size, value))

    def write(self, sbdf, offset, size, value):
        """Write a register of a function that is there and dom0's: vPCI would act for others on what it
        remembers, and what dom0 had mapped of a guest's stays as it was.
        """
        if self.hardware.slot(sbdf) is None or sbdf in self.given:
            return
        self.change(sbdf, offset, size, value)
        self.tell()

    def decode(self, sbdf, *, on):
        config = self.hardware.config(sbdf)
        if config is not None:
            command = int.from_bytes(config[COMMAND : COMMAND + 2], "little")
            self.write(sbdf, COMMAND, 2, command | ON if on else command & ~ON)

    def move_bar(self, sbdf, index, address, *, politely=True):
        """Give a BAR another address: Linux does it politely, with decode off meanwhile, and knows where."""
        slot = self.hardware.slot(sbdf)
        if slot is None or index not in slot.registers.sizes or sbdf in self.given:
            return
        at, on = 0x10 + 4 * index, slot.registers.decodes_memory
        if slot.registers.msix is not None and address >> 12 in FORBIDDEN:
            return  # vPCI leaves half of such a function mapped and drops the write of its command register
        if politely and on:
            self.decode(sbdf, on=False)
        if slot.registers.read(at, 4) & 0x6 == 0x4:
            self.change(sbdf, at + 4, 4, address >> 32)
        self.write(sbdf, at, 4, address & 0xFFFF_FFFF)
        raw = self.linux.raws.get(sbdf)
        if politely and raw is not None:
            lines = [*raw.resources]
            lines[index] = attrs.evolve(lines[index], start=address)
            self.linux.raws[sbdf] = attrs.evolve(raw, resources=tuple(lines))
        if politely and on:
            self.decode(sbdf, on=True)

    def reset(self, sbdf):
        """Power a function off and on; Linux writes its registers back."""
        slot = self.hardware.slot(sbdf)
        if slot is None or sbdf in self.given or slot.physfn is not None or sbdf not in self.linux.raws:
            return
        before = bytes(slot.registers.data)
        self.hardware.reset(sbdf)
        self._restore(sbdf, before)
        self.tell()

    def reset_bus(self, bridge):
        """Reset what is behind a bridge by its Bridge Control; Linux writes back what it reaches there.

        xen-pciback does that for a function that it has, and Xen does not trap these writes.
        """
        if self.hardware.slot(bridge) is None or bridge not in self.linux.raws:
            return
        behind = sorted(each for each in self.linux.raws if each != bridge and self._is_below(each, bridge))
        before = {each: config for each in behind if (config := self.hardware.config(each)) is not None}
        control = self.hardware.slot(bridge).registers.read(BRIDGE_CONTROL, 2)
        decoded = self._pages_out_of_reach()
        self.change(bridge, BRIDGE_CONTROL, 2, control | IN_RESET)
        self.change(bridge, BRIDGE_CONTROL, 2, control)
        self.cleared |= decoded - self._pages_out_of_reach()
        for each, config in before.items():
            self._restore(each, config)
        self.tell()

    def _pages_out_of_reach(self):
        """Give the pages that functions decode which are not where Linux has them."""
        reached = {self.hardware.slot(function) for function in self.linux.raws}
        away = [slot for slot in self.hardware.slots() if slot not in reached and slot.physfn is None]
        bars = [bar for slot in away if slot.registers.decodes_memory for _, bar in slot.registers.bars()]
        return {page for bar in bars for page in pages_of(bar.start, bar.size)}

    def _restore(self, sbdf, before):
        """Write registers back as pci_restore_config_space does: from the last to the first, Command last."""
        words = range(0x2C, 0x0C, -4) if before[HEADER] & 0x7F == BRIDGE else (0x30, *range(0x24, 0x0C, -4))
        for offset, size in (*((at, 4) for at in words), (COMMAND, 2)):
            self.change(sbdf, offset, size, int.from_bytes(before[offset : offset + size], "little"))

    def plug(self, raw):
        """Plug a function in where there is none; the kernel announces it."""
        bridge = self.hardware.slot(raw.parent) if raw.parent is not None else None
        if raw.parent is not None and (bridge is None or bridge.registers.data[SECONDARY] != raw.sbdf.bus):
            return
        if not self.hardware.has_bus(raw.sbdf.segment, raw.sbdf.bus):
            return
        if raw.sbdf in self.linux.raws or self.hardware.slot(raw.sbdf) is not None:
            return
        self.hardware.plug(raw)
        self.linux.raws[raw.sbdf] = raw
        bars = [line for line in raw.resources[:6] if line.size]
        self.linux.log.found(raw.sbdf, [bar.size for bar in bars], [bar.start for bar in bars])
        if int.from_bytes(raw.config[COMMAND : COMMAND + 2], "little") & ON:
            self.linux.log.say("enabling device (0000 -> 0002)", raw.sbdf)
        self.linux.log.uevents += 1
        self.xen.kernel_add(raw.sbdf)
        self.tell([raw.sbdf])

    def may_leave(self, functions):
        """Tell whether Xen survives it if Linux drops functions: an old Xen does not if one is an orphan."""
        devices = [self.xen.devices[sbdf] for sbdf in functions if sbdf in self.xen.devices]
        panics = ORPHAN_REMOVAL_PANICS.of(self.xen.identity.version)
        return not (panics and any(device.owner.kind is OwnerKind.NOBODY for device in devices))

    def pull(self, sbdf):
        """Take a function out; Linux has not noticed yet."""
        gone = [each for each in self.linux.raws if self._is_below(each, sbdf)]
        if self.hardware.slot(sbdf) is not None and self.may_leave(gone):
            self.hardware.pull(sbdf)
            self.pulled.update(gone)
            self.tell(written=gone)

    def drop(self):
        """Let Linux notice what was pulled: children first."""
        for sbdf in sorted(self.pulled, reverse=True):
            del self.linux.raws[sbdf]
            self.xen.kernel_remove(sbdf)
        gone, self.pulled = self.pulled, set()
        self.given -= gone
        if gone:
            self.tell(gone, removed=gone)

    def renumber(self, bridge, secondary, subordinate):
        self.write(bridge, 0x18, 4, bridge.bus | secondary << 8 | subordinate << 16)

    def enable_vfs(self, sbdf, count):
        """Let Linux make virtual functions: NumVFs, VF Enable and VF MSE, then it announces them."""
        slot = self.hardware.slot(sbdf)
        raw = self.linux.raws.get(sbdf)
        if slot is None or raw is None or slot.registers.sriov_at is None or slot.registers.vf_enable:
            return
        self.change(sbdf, SRIOV_AT + 0x10, 2, count)
        self.change(sbdf, SRIOV_AT + 8, 2, VFE | MSE)
        added = []
        for devfn in slot.enabled:
            vf = sbdf_from_devfn(sbdf.segment, sbdf.bus, devfn)
            lines = tuple(Resource(0, 0, 0) for _ in range(13))
            self.linux.raws[vf] = attrs.evolve(
                raw, sbdf=vf, config=self.hardware.config(vf), resources=lines, physfn=sbdf
            )
            self.xen.kernel_add(vf)
            added.append(vf)
        self.tell()
        self.tell(added)

    def disable_vfs(self, sbdf):
        vfs = [vf for vf, raw in self.linux.raws.items() if raw.physfn == sbdf]
        if not vfs or self.hardware.slot(sbdf) is None or not self.may_leave(vfs):
            return
        self.change(sbdf, SRIOV_AT + 8, 2, 0)
        self.tell()
        for vf in vfs:
            del self.linux.raws[vf]
            self.xen.kernel_remove(vf)
        self.tell(vfs, removed=vfs)

    def vf_memory(self, sbdf, *, on):
        slot = self.hardware.slot(sbdf)
        if slot is not None and slot.registers.vf_enable:
            self.write(sbdf, SRIOV_AT + 8, 2, VFE | MSE * on)

    def forget(self, sbdf):
        """Let somebody else remove a function from Xen's list."""
        device = self.xen.devices.get(sbdf)
        if device is not None and device.owner.domain == 0:
            self.xen.kernel_remove(sbdf)
            self.tell([sbdf])

    def give(self, sbdf, owner):
        """Give a function to xen-pciback and a guest, or to quarantine."""
        device = self.xen.devices.get(sbdf)
        if device is not None and device.owner == DOM0 and sbdf in self.linux.raws:
            self.given.add(sbdf)
            self.linux.raws[sbdf] = attrs.evolve(self.linux.raws[sbdf], driver="pciback")
            self.xen.give(sbdf, owner)
            self.tell([sbdf])

    def take_back(self):
        given, self.given = self.given, set()
        for sbdf in given & self.linux.raws.keys():
            self.linux.raws[sbdf] = attrs.evolve(self.linux.raws[sbdf], driver=None)
            if sbdf in self.xen.devices:
                self.xen.give(sbdf, DOM0)
            self.tell([sbdf])

    def meddle(self, after, what, sbdf):
        """Have a second caller do something between two calls of the daemon, with its message."""
        self.xen.second.order(after, partial(what, self, sbdf))

    def give_meanwhile(self, sbdf):
        device = self.xen.devices.get(sbdf)
        if device is not None and device.owner == DOM0 and sbdf in self.linux.raws:
            self.given.add(sbdf)
            self.linux.raws[sbdf] = attrs.evolve(self.linux.raws[sbdf], driver="pciback")
            self.xen.give(sbdf, Owner(OwnerKind.DOMAIN, 1))
            self.hotplug.push("change", sbdf)

    def return_meanwhile(self, sbdf):
        anew = VPCI_BUILT_AT_ASSIGN.of(self.xen.identity.version)
        if sbdf in self.given & self.linux.raws.keys() and not (anew and self.hardware.slot(sbdf) is None):
            self.given.discard(sbdf)
            self.linux.raws[sbdf] = attrs.evolve(self.linux.raws[sbdf], driver=None)
            if sbdf in self.xen.devices:
                self.xen.give(sbdf, DOM0)
            self.hotplug.push("change", sbdf)

    def remove_meanwhile(self, sbdf):
        device = self.xen.devices.get(sbdf)
        if device is not None and device.owner.domain == 0:
            self.xen.kernel_remove(sbdf)
            self.hotplug.push("change", sbdf)

    def add_meanwhile(self, sbdf):
        """Linux announces what it has found and not enabled: of anything else an old Xen keeps an orphan, or
        gives it up, and panics when a driver switches memory decode after that.
        """
        slot = self.hardware.slot(sbdf)
        there = slot is not None and not slot.registers.decodes_memory and sbdf not in self.pulled
        if there and sbdf in self.linux.raws and sbdf not in self.xen.devices:
            self.xen.kernel_add(sbdf)
            self.hotplug.push("change", sbdf)

    def map_meanwhile(self, _sbdf):
        """Another program maps a page that dom0 needs: it changes nothing, or does what pcipt is about to."""
        truth = p2m_truth(self.hardware, self.xen, FORBIDDEN, self.linux.raws)
        for page in sorted(truth.must)[:4] if self.xen.p2m is not None else ():
            self.xen.p2m.map(Frames(Gfn(page), 1))

    def unmap_meanwhile(self, _sbdf):
        """Another program unmaps what a function has left behind, which pcipt is about to do.

        It leaves what vPCI counts on: an unmap of vPCI that fails makes an old Xen give the function up.
        """
        if self.xen.p2m is None:
            return
        regions = {page for region in self.xen.reserved.regions for page in pages_of_region(region)}
        truth = p2m_truth(self.hardware, self.xen, FORBIDDEN | regions, self.linux.raws)
        left = [run for run in self.engine.ledger.mapped if run.sbdf not in self.xen.devices]
        spare = {page for run in left for page in range(run.frames.start, run.frames.end)}
        for page in sorted(spare - truth.must - truth.may - regions - FORBIDDEN)[:4]:
            self.xen.p2m.unmap(Frames(Gfn(page), 1))

    def settle(self):
        """Let everything come to rest: no faults, Linux knows what there is, enough time for all attempts."""
        self.xen.heal()
        self.xen.second.rest()
        self.store.die_at = self.xen.die_at = None
        self.drop()
        for _ in range(4):
            compare(self.engine)
            self.time += PAUSE
            work_off(self.engine)

    def mistakes(self):
        """Compare the p2m with the definition: pages that are missing, pages that are too many.

        What a function left stays where it touches another's BAR that does not decode, and a region over
        which a BAR lies, if pcipt says so. What a given function had mapped stays, and what vPCI has mapped
        for a function that was reset where Linux does not reach it: nothing is read, and vPCI counts on it.
        """
        regions = {page for region in self.xen.reserved.regions for page in pages_of_region(region)}
        mapped = mapped_pages(self.xen)
        truth = p2m_truth(self.hardware, self.xen, FORBIDDEN | regions, self.linux.raws)
        dropped = {page for region in self.firmware for page in pages_of_region(region)} - regions
        missing, stale = truth.mistakes(mapped - regions - dropped)  # Xen maps reserved memory at boot
        gone, left = region_truth(self.xen, self.linux.raws, self.hardware).mistakes(mapped & regions)
        missing = [page for page in missing if page < LAST] + gone
        under = [bar for function in self.hardware.functions() if not self.hardware.decodes_memory(function)
                 for _, bar in self.hardware.memory_bars(function)]  # fmt: skip
        told = {page for held in self.engine.ledger.mapped if held.state is State.STALE
                for page in range(held.frames.start, held.frames.end)
                if any(bar.overlaps(held.frames.range) for bar in under)}  # fmt: skip
        told |= {page for held in self.engine.ledger.mapped if held.sbdf in self.given
                 for page in range(held.frames.start, held.frames.end)}  # fmt: skip
        told |= {page for held in self.engine.ledger.mapped if self.hardware.slot(held.sbdf) is None
                 for page in range(held.frames.start, held.frames.end) if page in self.cleared}  # fmt: skip
        texts = [finding.text for _, finding in self.engine.findings if finding.code == "region-left"]
        told |= {page for region in self.xen.reserved.regions for page in pages_of_region(region)
                 if any(str(region.frames) in text for text in texts)}  # fmt: skip
        known = (
            self.engine.views.reserved.scopes
        )  # of a region without any device Xen maps the memory at boot
        told |= {page for region in self.xen.reserved.regions if not known.get(region.frames)
                 for page in pages_of_region(region)}  # fmt: skip
        return missing, sorted({*left, *stale} - told)

    def _is_below(self, sbdf, top):
        raw = self.linux.raws[sbdf]
        while raw is not None:
            if top in (raw.sbdf, raw.physfn):
                return True
            raw = self.linux.raws.get(raw.parent)
        return False


def frames(span):
    return Frames(Gfn(span.start >> 12), span.size >> 12)


FORBIDDEN = frozenset(
    page
    for span in (frames(RAM), frames(MMCFG), Frames(Gfn(0), 0x100), Frames(Gfn(0xFEE00), 0x100))
    for page in range(span.start, span.end)
)
