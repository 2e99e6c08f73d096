"""Claims, plan and guards together, on machines whose BARs may be anywhere, hostile addresses included.

vPCI plays its part on what Xen knows; pcipt performs only what the guards allow. The host must survive every
step, and in the end exactly those pages are mapped that somebody decodes.
"""

from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import decode_machine
from pcipt.remap.actions import MapMmio, Refusal
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.bar_ranges import decoding_range
from pcipt.remap.desired import By, desired_of, gone, place_of
from pcipt.remap.guard.facts import Facts
from pcipt.remap.guard.protected import protected_ranges
from pcipt.remap.guard.rules import check_action
from pcipt.remap.mapped_pages import MappedPages
from pcipt.remap.plan_mappings import note, plan_mappings
from tests.remap.devices import WHEN, S, device, frames, known, port
from tests.xen.versions import version_of

PVH = {"pvh": True, "version": version_of(4, 17)}

FREE = 0xE000_0000
RAM = frames(0x100_0000, 16)
IOAPIC, MSI_WINDOW = 0xFEC0_0000, 0xFEE0_0000
PROTECTED = protected_ranges([entry(0x100_0000, 0x1_0000, MemoryType.RAM)])
PORT = port(base=0, limit=0xFFFF_FFFF)
ADDRESSES = [f"01:0{number}.0" for number in range(4)]
HOSTILE = [0x100_0000, 0x100_F000, 0xFF_F000, IOAPIC, MSI_WINDOW, MSI_WINDOW - 0x1000, 0xA_0000]
SNAPSHOT = BootSnapshot("boot", frozenset(), {})

START = st.one_of(st.integers(0, 7).map(lambda page: FREE + page * 0x1000), st.sampled_from(HOSTILE))
SIZE = st.sampled_from([0x100, 0x1000, 0x2000])
BAR = st.tuples(START, SIZE)
STATE = st.tuples(BAR, BAR, st.booleans(), st.booleans(), st.booleans())  # BARs, decodes, Xen knows, MSI-X
CHANGE = st.tuples(st.sampled_from(ADDRESSES), st.one_of(st.none(), STATE))


def pages_of(spans):
    return {page for span in spans for page in range(span.start, span.end)}


class World:
    def __init__(self):
        self.raws, self.known = {"00:1c.0": PORT}, {"00:1c.0"}
        self.p2m, self.vpci = set(), {}
        self.mapped = MappedPages()

    def read(self):
        self.machine = decode_machine(self.raws.values())
        self.xen = known(*self.known)
        self.bars = BarIndex(self.machine.functions.values())

    def change(self, address, state):
        """Let hardware, Linux and Xen change; vPCI follows what it knows before and after."""
        before = self.vpci.pop(address, set())
        trapped_before = address in self.known
        self.raws.pop(address, None)
        self.known.discard(address)
        if state is None:
            self.mapped.forsake(f"00_1c.0-00_{address[3:]}")
        else:
            first, second, decodes, listed, msix = state
            self.raws[address] = device(
                address, [first, second], parent="00:1c.0", command=2 * decodes, msix=(0, 0) if msix else None
            )
            self.known |= {address} if listed else set()
        self.read()
        if address not in self.known:
            return
        mine = self.desired_pages(address)
        if trapped_before:
            self.p2m -= before - mine - {page for pages in self.vpci.values() for page in pages}
        self.vpci[address] = mine
        self.p2m |= mine

    def desired_pages(self, address):
        """Compute what vPCI maps: BARs of which no page lies over the memory map."""
        claimed = [pages_of(wanted.spans) for wanted in self.desired(address).bars]
        return {page for pages in claimed if not any(map(is_taboo, pages)) for page in pages}

    def desired(self, address):
        function = self.machine.functions.get(S(address))
        if function is None:
            return gone(f"00_1c.0-00_{address[3:]}", S(address))
        return desired_of(
            function,
            self.machine.functions,
            self.xen,
            pvh=True,
            version=version_of(4, 17),
            protected=PROTECTED,
        )

    def facts(self):
        return Facts(
            machine=self.machine, xen=self.xen, **PVH,
            iommu=IommuScope(SNAPSHOT), bars=self.bars, mapped=self.mapped, protected=PROTECTED,
        )  # fmt: skip

    def act(self, addresses):
        plan = plan_mappings([self.desired(address) for address in addresses], self.mapped, self.bars)
        note(plan, self.mapped, WHEN)
        for action in plan.actions:
            pages = pages_of([action.frames])
            if isinstance(check_action(action, self.facts()), Refusal):
                continue
            assert not any(map(is_taboo, pages)), "the host is harmed"
            self.mapped.intend(action, WHEN)
            if isinstance(action, MapMmio):
                self.p2m |= pages
            else:
                assert not pages & self.needed(), "a page that somebody decodes was taken away"
                self.p2m -= pages
            self.mapped.performed(action, WHEN)

    def needed(self):
        return {
            page
            for address in self.raws
            for wanted in self.desired(address).bars
            for page in pages_of(wanted.spans)
        }

    def in_doubt(self):
        """List pages that guards keep as they are: over other functions' BARs, or not to be touched."""
        present = [
            (function, bar, frames(bar.address, -(-((bar.address & 0xFFF) + bar.size) // 0x1000)))
            for function in self.machine.functions.values()
            for bar in function.bars
        ]
        return {page for _, _, span in present for page in pages_of([span])}


def is_taboo(page):
    return PROTECTED.why(frames(page << 12, 1)) is not None


@given(st.lists(CHANGE, max_size=14))
def test_whatever_comes_the_host_lives_and_what_decodes_is_mapped(changes):
    world = World()
    world.read()
    for address, state in changes:
        world.change(address, state)
        world.act([address])
    for _ in range(2):
        world.act([*ADDRESSES, "00:1c.0"])
    stray = world.p2m - world.needed()
    assert stray <= world.in_doubt(), "nobody decodes there, and it is still mapped"
    for address in world.raws:
        for wanted in world.desired(address).bars:
            if wanted.by is By.US and not conflicts(world, address, wanted.bar):
                assert pages_of(wanted.spans) <= world.p2m
    again = plan_mappings([world.desired(address) for address in world.raws], world.mapped, world.bars)
    facts = world.facts()
    assert all(isinstance(check_action(action, facts), Refusal) for action in again.actions)


def conflicts(world, address, index):
    """Whether a BAR lies over what is protected, another function's BAR or a trapped MSI-X page."""
    function = world.machine.functions[S(address)]
    span = next(decoding_range(bar) for bar in function.bars if bar.index == index)
    pages = frames(span.start & ~0xFFF, ((span.last >> 12) - (span.start >> 12)) + 1)
    others = [bar for bar in world.bars.over(pages) if bar.place != place_of(function)]
    return (
        PROTECTED.why(pages) is not None
        or any(bar.decoding and bar.range.overlaps(span) for bar in others)
        or any(world.xen.in_dom0(sbdf) for sbdf in world.bars.tables_over(pages))
    )
