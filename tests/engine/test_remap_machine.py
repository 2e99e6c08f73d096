"""The property that matters: whatever befalls a machine, no catastrophe, and at rest the p2m is as defined.

Random events befall a machine with all that makes mapping hard: MSI-X pages inside BARs, 64-bit BARs, pages
shared by functions, ROMs, virtual functions, nested bridges, a header that vPCI does not know, reserved
regions of one device and of several. Calls fail half way, the daemon is killed between any two of them.
"""

import errno
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pcipt.daemon.settings import Settings
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.releases import VPCI_BUILT_AT_ASSIGN
from pcipt.xen.simulated.registers import BRIDGE_CONTROL
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.world import World
from tests.xen.devices import device, port
from tests.xen.versions import VERSIONS

S = parse_sbdf
ENDPOINTS = [S(text) for text in ("00:02.0", "00:03.0", "00:04.0", "00:06.0", "02:00.0", "03:00.0")]
BRIDGES = [S("00:1c.0"), S("02:01.0")]
PHYSFN, UNTRAPPED = S("00:05.0"), S("00:06.0")
# where hot-plug puts functions
SLOTS = [S("00:08.0"), S("00:09.0"), S("02:02.0"), S("03:01.0")]
# BARs may lie over each other, but not over an MSI-X table: vPCI's own map then depends on who came first
SHARED = [0xC020_0000 + 0x1_0000 * number for number in range(6)]
ALONE = {function: [0xC100_0000 + 0x10_0000 * (16 + number) + 0x1_0000 * place for place in range(3)]
         for number, function in enumerate([S("00:02.0"), S("02:00.0"), *SLOTS])}  # fmt: skip
HOSTILE = [0x20_0000, 0xA_0000, 0xB000_0000, 0xC001_0000, 0x7000_2000]
APIC = 0xFEE0_0000  # a function that vPCI traps would lose its handlers there, and Xen does not say so
#: For one device, for two, for one that is there and one that may be plugged in, for none that is there.
REGIONS = [
    ReservedRegion(Frames(Gfn(0x7_0000 + 0x10 * number), 4), tuple(map(S, scope)))
    for number, scope in enumerate(
        [["00:03.0"], ["00:03.0", "02:00.0"], ["00:04.0", "00:08.0"], ["02:02.0", "00:09.0"]]
    )
]
ERRNOS = [
    errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.ENODEV, errno.EACCES, errno.EINTR, errno.EINVAL,
]  # fmt: skip
# to these an error is an answer: nothing is mapped there, somebody else has it, no IOMMU unit serves it
ANSWERS = {Op.UNMAP: {errno.EINVAL}, Op.CUSTODY: {errno.EINVAL}, Op.ADD: {errno.ENODEV}}


def raws():
    return [
        device("00:02.0", (0xC000_0000, 0x4000), (0x8_0000_0000, 0x1_0000, "64"), msix=(0, 0x1000, 0x2000),
               rom=(0xC100_0000, 0x2000)),
        device("00:03.0", (0xC001_0000, 0x800)),
        device("00:04.0", (0xC001_0800, 0x800), (0xC001_2000, 0x1000)),
        device("00:05.0", (0xC003_0000, 0x1000), sriov=(3, 0x80, 1, [(0xC004_0000, 0x2000)])),
        device("00:06.0", (0xC002_0000, 0x1000), header=2),
        port("00:1c.0", 2, 9, command=0),
        device("02:00.0", (0xC010_0000, 0x4000), msix=(0, 0x1000, 0x1800), parent="00:1c.0"),
        port("02:01.0", 3, 3, command=0, parent="00:1c.0"),
        device("03:00.0", (0xC011_0000, 0x1000), parent="02:01.0"),
    ]  # fmt: skip


def target(function, index, number):
    """Choose an address for a BAR."""
    choice = [base + 0x8_0000 * index for base in ALONE.get(function, ())] or [*SHARED, *HOSTILE]
    choice += [APIC] if function == UNTRAPPED else []
    return choice[number % len(choice)]


OWNERS = [Owner(OwnerKind.DOMAIN, 1), Owner(OwnerKind.QUARANTINE)]
STEPS = Counter()  # that were made of each machine
MEDDLED = Counter()  # what a second caller has done between two calls
PARENTS = {0: None, 2: "00:1c.0", 3: "02:01.0"}


class RemapMachine(RuleBasedStateMachine):
    """One life of a machine; at its end everything comes to rest and is compared."""

    dom0 = "pvh"
    mode = "enforce"

    @initialize(
        version=st.sampled_from(VERSIONS),
        iommu=st.sampled_from(["vt-d", "vt-d", "amd", "amd-few"]),
        unknown=st.sets(st.sampled_from(ENDPOINTS), max_size=2),
        announcing=st.booleans(),
    )
    def begin(self, version, iommu, unknown, announcing):
        machine = raws()
        known = [raw.sbdf for raw in machine if raw.sbdf not in unknown]
        chosen = Settings(mode=self.mode, actions={"add-device": announcing})
        self.world = World(
            machine, dom0=self.dom0, version=version, settings=chosen, known=known, reserved=REGIONS,
            iommu=iommu,
        )  # fmt: skip

    @rule(function=st.sampled_from([*ENDPOINTS, *SLOTS, *BRIDGES]), on=st.booleans())
    def decode(self, function, on):
        self.world.decode(function, on=on)

    @rule(
        function=st.sampled_from([*ENDPOINTS, *SLOTS]),
        index=st.integers(0, 1),
        number=st.integers(0, 99),
        politely=st.booleans(),
    )
    def move(self, function, index, number, politely):
        self.world.move_bar(function, index, target(function, index, number), politely=politely)

    @rule(value=st.sampled_from([0xC100_0000, 0xC100_0001, 0xC110_0001]))
    def rom(self, value):
        self.world.write(ENDPOINTS[0], 0x30, 4, value)

    @rule(
        function=st.sampled_from([f for f in [*ENDPOINTS, PHYSFN, *BRIDGES] if not f.bus]),
        offset=st.integers(0x04, 0x3F),
        size=st.sampled_from([1, 2, 4]),
        value=st.integers(0, 0xFFFF_FFFF),
    )
    def scribble(self, function, offset, size, value):
        """Write anywhere but to BARs that vPCI traps: it believes in addresses that no BAR can have."""
        if function in BRIDGES and offset + size > BRIDGE_CONTROL:
            return  # the bus behind it would stay in reset, and vPCI keeps what is mapped there
        if function == UNTRAPPED or offset + size <= 0x10 or offset >= 0x34:
            self.world.write(function, offset, size, value & (1 << 8 * size) - 1)

    @rule(function=st.sampled_from([*ENDPOINTS, *SLOTS]))
    def reset(self, function):
        self.world.reset(function)

    @rule(bridge=st.sampled_from(BRIDGES))
    def reset_bus(self, bridge):
        self.world.reset_bus(bridge)

    @rule(where=st.sampled_from(SLOTS), number=st.integers(0, 99), on=st.booleans(), msix=st.booleans())
    def plug(self, where, number, on, msix):
        parent, address = PARENTS[where.bus], target(where, 0, number)
        self.world.plug(
            device(str(where), (address, 0x4000), command=self.world.decode_at_add * on,
                   msix=(0, 0x2000, 0x3000) if msix else None, parent=parent)
        )  # fmt: skip

    @rule(function=st.sampled_from([*ENDPOINTS, *SLOTS, PHYSFN, *BRIDGES]))
    def pull(self, function):
        self.world.pull(function)

    @rule()
    def notice(self):
        self.world.drop()

    @rule(count=st.integers(1, 3))
    def enable_vfs(self, count):
        self.world.enable_vfs(PHYSFN, count)

    @rule()
    def disable_vfs(self):
        self.world.disable_vfs(PHYSFN)

    @rule(on=st.booleans())
    def vf_memory(self, on):
        self.world.vf_memory(PHYSFN, on=on)

    @rule(secondary=st.sampled_from([2, 2, 4, 6, 12]), width=st.integers(0, 4))
    def renumber_port(self, secondary, width):
        self.world.renumber(BRIDGES[0], secondary, secondary + width)

    @rule(secondary=st.sampled_from([3, 3, 5, 7]), width=st.integers(0, 1))
    def renumber_nested(self, secondary, width):
        self.world.renumber(BRIDGES[1], secondary, secondary + width)

    @rule(function=st.sampled_from(ENDPOINTS))
    def forget(self, function):
        self.world.forget(function)

    @rule(
        op=st.sampled_from(list(Op)),
        number=st.sampled_from(ERRNOS),
        call=st.integers(1, 3),
        pages=st.integers(0, 4),
        performed=st.booleans(),
    )
    def fail(self, op, number, call, pages, performed):
        if number not in ANSWERS.get(op, ()):
            self.world.xen.fail(op, number, call=call, pages=pages, performed=performed)

    @rule(after=st.integers(1, 3), late=st.booleans())
    def kill_at_a_saving(self, after, late):
        self.world.store.die_at = self.world.store.saved + after
        self.world.store.die_after = late

    @rule(after=st.integers(1, 3))
    def kill_at_a_call(self, after):
        self.world.xen.die_at = self.world.xen.changed + after

    @rule(function=st.sampled_from(ENDPOINTS), owner=st.sampled_from(OWNERS))
    def give(self, function, owner):
        self.world.give(function, owner)

    @rule()
    def take_back(self):
        """Where vPCI is built anew, it cannot be for a function that does not answer; nobody sees that.

        pcipt maps the BARs of such a function once when its driver is bound.
        """
        anew = VPCI_BUILT_AT_ASSIGN.of(self.world.xen.identity.version)
        if not anew or all(self.world.hardware.slot(sbdf) is not None for sbdf in self.world.given):
            self.world.take_back()

    @rule()
    def resync(self):
        self.world.tell(doubt=True)

    @invariant()
    def the_host_lives(self):
        if hasattr(self, "world"):
            STEPS[type(self)] += 1
            assert self.world.xen.catastrophe is None

    def teardown(self):
        if hasattr(self, "world"):
            self.world.settle()
            self.compare()

    def compare(self):
        assert self.world.mistakes() == ([], [])


MEDDLING = [
    World.give_meanwhile, World.return_meanwhile, World.remove_meanwhile, World.add_meanwhile,
    World.map_meanwhile, World.unmap_meanwhile,
]  # fmt: skip


class MeddledMachine(RemapMachine):
    """A second caller assigns, returns, adds, removes, maps and unmaps between any two calls of the daemon.

    At the end the p2m is as defined, or the status tells of each function whose pages are not.
    """

    @rule(
        after=st.integers(1, 12),
        what=st.sampled_from(MEDDLING),
        function=st.sampled_from([*ENDPOINTS, *SLOTS]),
    )
    def meddle(self, after, what, function):
        self.world.meddle(after, what, function)

    def teardown(self):
        super().teardown()
        if hasattr(self, "world"):
            MEDDLED[type(self)] += self.world.xen.second.done


class MeddledParavirtualMachine(MeddledMachine):
    """The same on a PV dom0: Xen's list is the machine's at the end."""

    dom0 = "pv"

    def compare(self):
        assert [call for call in self.world.xen.calls if call.op in {Op.MAP, Op.UNMAP}] == []


class ParavirtualMachine(RemapMachine):
    """On a PV dom0 nothing is ever mapped."""

    dom0 = "pv"

    def compare(self):
        assert [call for call in self.world.xen.calls if call.op in {Op.MAP, Op.UNMAP}] == []


class ObservedMachine(RemapMachine):
    """Where pcipt only observes, it changes nothing."""

    mode = "observe"

    def compare(self):
        assert self.world.xen.changes == ()
        assert self.world.linux.written == 0


PHASES = (Phase.generate, Phase.shrink)  # explaining traces every line


def run(machine, examples):
    machine.TestCase.settings = settings(
        max_examples=examples * settings.default.max_examples // 100,  # the profile's share
        stateful_step_count=50,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[phase for phase in PHASES if phase in settings.default.phases],
        suppress_health_check=list(HealthCheck),
    )
    return machine.TestCase


pytestmark = pytest.mark.timeout(600)  # on a busy machine too


class TestRemap(run(RemapMachine, 270)):
    def runTest(self):  # noqa: N802 - unittest's name
        super().runTest()
        assert STEPS[RemapMachine] >= 10_000 * settings.default.max_examples // 100


class TestMeddled(run(MeddledMachine, 60)):
    def runTest(self):  # noqa: N802 - unittest's name
        super().runTest()
        assert MEDDLED[MeddledMachine] >= 50 * settings.default.max_examples // 100


TestMeddledParavirtual = run(MeddledParavirtualMachine, 10)
TestParavirtual = run(ParavirtualMachine, 10)
TestObserved = run(ObservedMachine, 10)


@pytest.mark.parametrize("version", VERSIONS[::5])
@pytest.mark.parametrize("announcing", [False, True])
@pytest.mark.parametrize("after", range(1, 12))
def test_xen_is_made_to_forget_a_function_while_pcipt_repeats_a_write_to_its_bar(version, announcing, after):
    """The BAR is at its new address then, and vPCI has moved no page."""
    function, known = S("00:02.0"), [raw.sbdf for raw in raws()]
    settings = Settings(actions={"add-device": announcing})
    world = World(raws(), version=version, known=known, settings=settings)
    world.meddle(after, World.remove_meanwhile, function)
    world.move_bar(function, 0, target(function, 0, 0), politely=False)
    world.settle()
    assert world.xen.second.done == 1
    assert world.mistakes() == ([], [])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_page_that_a_given_function_shared_is_mapped_when_the_function_is_back(version):
    """vPCI spares pages only for other functions of the same domain."""
    world = World(raws(), version=version)
    world.give(S("00:03.0"), OWNERS[0])
    world.move_bar(S("00:04.0"), 0, SHARED[0])
    world.take_back()
    world.settle()
    assert world.mistakes() == ([], [])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("saving", [1, 2, 3, 4])
def test_a_page_that_vpci_unmapped_is_mapped_again_after_a_kill(version, saving):
    """pcipt maps it for another function, and is killed before the intent of that map is on disk."""
    world = World(raws(), version=version, known=[raw.sbdf for raw in raws() if raw.sbdf != S("00:04.0")],
                  settings=Settings(actions={"add-device": False}))  # fmt: skip
    world.store.die_at = world.store.saved + saving
    world.move_bar(S("00:03.0"), 0, SHARED[0])
    world.settle()
    assert world.mistakes() == ([], [])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("call", [1, 2, 3])
def test_the_map_of_a_shared_page_fails_for_one_of_its_functions(version, call):
    """Two functions decode on one page and a kill has left both maps open: the second one succeeds."""
    world = World(raws(), version=version, settings=Settings(actions={"add-device": False}))
    world.store.die_at, world.store.die_after = world.store.saved + 1, True
    world.xen.fail(Op.MAP, 1, call=call, pages=0, performed=False)
    world.xen.die_at = world.xen.changed + 2
    world.reset_bus(BRIDGES[0])
    world.settle()
    assert world.mistakes() == ([], [])
