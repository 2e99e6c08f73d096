"""Five laws of the reconciliation, on random machines and histories: PV and PVH, each release, simulated.

`make laws EXAMPLES=1000` runs each law on that many examples, the same ones each time, and with FRESH=1 on
others; `make test` runs each on a few. A history is a list of batches. All events of a batch happen first;
then the service is told of them, in one way or another.
"""

import itertools
import os

import attrs
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from pcipt.daemon.control.status import health_of
from pcipt.engine.queue import Reason
from pcipt.engine.views.vpci_picture import rewrites_of
from pcipt.pci import frames_from_range, parse_sbdf
from pcipt.remap.actions import AddDevice, Result
from pcipt.remap.ledger_json import ledger_to_json
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import mapped_to_json
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.registers import BRIDGE_CONTROL
from tests.engine.stage import Killed, compare, work_off
from tests.engine.test_remap_machine import ALONE, BRIDGES, ENDPOINTS, REGIONS, SHARED, SLOTS, raws
from tests.engine.world import IN_RESET, PAUSE, World
from tests.xen.devices import device, port
from tests.xen.truth import mapped_pages
from tests.xen.versions import VERSIONS

S = parse_sbdf
EXAMPLES = int(os.environ.get("PCIPT_LAWS", "20"))
PHYSFN = S("00:05.0")
PARENTS = {0: None, 2: "00:1c.0", 3: "02:01.0"}
OWNERS = [Owner(OwnerKind.DOMAIN, 1), Owner(OwnerKind.QUARANTINE)]
ADDRESSES = {
    function: [base + 0x8_0000 * turn for base in ALONE.get(function, SHARED[:4]) for turn in range(2)]
    for function in [*ENDPOINTS, *SLOTS]
}

#  what happens: to which functions, with which numbers; `Telling.happen` lets it happen
CHOICES = {
    "decode": ([*ENDPOINTS, *SLOTS, *BRIDGES], [False, True]),
    "move": ([*ENDPOINTS, *SLOTS], range(8)),
    "reset": ([*ENDPOINTS, *SLOTS], [0]),
    "reset bus": (BRIDGES, [0]),
    "plug": (SLOTS, range(8)),
    "pull": ([*ENDPOINTS, *SLOTS, PHYSFN], [0]),
    "renumber": (BRIDGES[:1], [2, 2, 4, 6]),
    "forget": (ENDPOINTS, [0]),
    "give": (ENDPOINTS, [0, 1]),
    "take back": ([None], [0]),
    "vfs": ([PHYSFN], [0, 1, 2]),
}
EVENTS = st.one_of(
    st.tuples(st.just(what), st.sampled_from(functions), st.sampled_from(numbers))
    for what, (functions, numbers) in CHOICES.items()
)
HISTORIES = st.lists(st.lists(EVENTS, min_size=1, max_size=3), min_size=1, max_size=4)
WORLDS = st.fixed_dictionaries(
    {
        "dom0": st.sampled_from(["pvh", "pvh", "pv"]),
        "version": st.sampled_from(VERSIONS),
        "unknown": st.sets(st.sampled_from(ENDPOINTS), max_size=2),
        "bound": st.sets(st.sampled_from(ENDPOINTS), max_size=3),
        "iommu": st.sampled_from(["vt-d", "vt-d", "amd", "amd-few"]),
        "build": st.booleans(),
    }
)


class Telling(World):
    """A world whose events are heard of, and told when the test says so; it gives the messages one by one."""

    def __init__(self, dom0, version, unknown, iommu="vt-d", bound=(), build=False):
        self.heard = []
        self.unseen = set()
        narrow = port("00:1c.0", 2, 4, command=0)  # fewer buses on which Xen is asked for ghosts
        machine = [narrow if raw.sbdf == narrow.sbdf else raw for raw in raws()]
        machine = [attrs.evolve(raw, driver="nvme") if raw.sbdf in bound else raw for raw in machine]
        known = [raw.sbdf for raw in machine if raw.sbdf not in unknown]
        super().__init__(
            machine, dom0=dom0, version=version, known=known, reserved=REGIONS, iommu=iommu, build=build
        )

    def tell(self, plugged=(), *, written=(), removed=(), doubt=False):  # noqa: ARG002 - World's
        for sbdf in plugged:
            fresh = sbdf not in self.engine.machine.functions
            word = Reason.DISAPPEARED if sbdf in removed else Reason.APPEARED if fresh else Reason.OWNER
            self.heard.append((word, sbdf))
        self.heard += [(Reason.WRITTEN, s) for s in written]

    def change(self, sbdf, offset, size, value):
        self.xen.write_config(sbdf, offset, size, value)
        self.heard.append((Reason.WRITTEN, sbdf))
        if offset == BRIDGE_CONTROL and value & IN_RESET:  # the watch tells what a reset has reached
            behind = [each for each in sorted(self.linux.raws) if self._is_below(each, sbdf)]
            self.heard += [(Reason.WRITTEN, each) for each in behind if each != sbdf]

    def happen(self, event):
        what, function, number = event
        if what == "decode":
            self.decode(function, on=number)
        elif what == "move":
            self.move_bar(function, 0, ADDRESSES[function][number % len(ADDRESSES[function])])
        elif what == "plug":
            address = ADDRESSES[function][number % len(ADDRESSES[function])]
            self.plug(
                device(
                    str(function), (address, 0x4000), command=self.decode_at_add, parent=PARENTS[function.bus]
                )
            )
        elif what == "pull":
            self.unseen |= self.pages_seen_by_nobody(function)
            self.pull(function)
            self.drop()
        elif what == "renumber":
            self.renumber(function, number, number + 2)
        elif what in {"forget", "reset", "reset bus"}:
            getattr(self, what.replace(" ", "_"))(function)
        elif what == "give":
            self.give(function, OWNERS[number])
        elif what == "take back":
            self.take_back()
        elif number:
            self.enable_vfs(function, number)
        else:
            self.disable_vfs(function)

    def pages_seen_by_nobody(self, function):
        """Give the pages of BARs that moved right before their function leaves: nobody read them there."""
        if function not in self.linux.raws:
            return set()
        behind = [s for s in self.linux.raws if s == function or self._is_below(s, function)]
        return self.pages_of_bars(behind) - pages_of(self.engine.ledger.mapped)

    def pages_of_bars(self, functions):
        """Give the pages of the memory BARs of functions, whether or not they decode."""
        bars = [frames_from_range(bar) for s in functions for _, bar in self.hardware.memory_bars(s)]
        return {page for each in bars for page in range(each.start, each.end)}

    def mistakes(self):
        missing, stale = super().mistakes()
        return missing, sorted({*stale} - self.unseen)

    def visit(self, slot, number, *, alone):
        """Let a function come to a free slot and leave; with `alone` no service runs meanwhile."""
        if slot in self.linux.raws or self.hardware.slot(slot) is not None:
            return
        if not slot.bus:  # on a root bus only what Linux has enabled counts (decision 0020)
            return
        for event in [("plug", slot, number), ("pull", slot, 0)]:
            self.happen(event)
            if not alone:
                self.deliver_each(self.hear())
                self.rest()
        if alone:
            self.hear()
            self.start()
            self.rest()

    def hear(self):
        heard, self.heard = self.heard, []
        return heard

    def deliver(self, messages, waiting=()):
        """Give the service some messages and let it act; `waiting` are in the socket until it looks there."""
        waiting = list(waiting)

        def take_messages():
            while waiting:
                reason, sbdf = waiting.pop(0)
                self.engine.add(sbdf, reason)

        self.engine.take_messages = take_messages
        try:
            for reason, sbdf in messages:
                self.engine.add(sbdf, reason)
            work_off(self.engine)
        except Killed:
            self.linux.dead = True
            self.start()

    def rest(self):
        """Let time pass until nothing is due any more."""
        for _ in range(8):
            self.time += PAUSE
            self.deliver([])

    def told(self, history):
        """Play a history, each message alone and in order."""
        for batch in history:
            for event in batch:
                self.happen(event)
            self.deliver_each(self.hear())
            self.rest()
        return self

    def deliver_each(self, messages):
        """Give the service the first message, the others one by one when it looks at the socket."""
        for number, message in enumerate(messages):
            self.deliver([message], messages[number + 1 :])

    def undecided(self):
        """Give the pages that a killed service cannot know about: two functions had them mapped, one left and
        the other stopped to decode while nobody looked. Only if that was the order, vPCI unmapped the pages.
        Nor can it know whether vPCI has a function again that it had given up, or that Xen complained about.
        """
        hardware = self.hardware
        off = [sbdf for sbdf in hardware.functions() if not hardware.decodes_memory(sbdf)]
        silent = [frames_from_range(bar) for sbdf in off for _, bar in hardware.memory_bars(sbdf)]
        runs = [run for run in self.engine.ledger.mapped if run.state is State.STALE]
        left = [run for run in runs if any(run.frames.overlaps(each) for each in silent)]
        told = {self.engine.views.state.address_of(place) for place in self.engine.memory.told_given_up}
        told |= {about for about, finding in self.engine.findings if finding.code == "assign-failed"}
        unproven = self.pages_of_bars(told & {*hardware.functions()})
        return unproven | pages_of(left) | self.shared_with_guests()

    def shared_with_guests(self):
        """Give the pages of guests' functions that are in doubt: another function had them mapped and stopped
        to decode. vPCI spared the pages only if that was before the guest got its function, and messages that
        come together do not tell which was first.
        """
        given = [run for run in self.engine.ledger.mapped if run.sbdf in self.given]
        return pages_of(run for run in given if run.state is State.DOUBTFUL)

    def doubtful(self):
        """Give the pages of which the ledger says that nobody knows whether they are mapped."""
        return pages_of(
            run for run in self.engine.ledger.mapped if run.state in {State.STALE, State.DOUBTFUL}
        )

    def state(self, doubt=(), unknown=frozenset()):
        """Return what Xen, ledger and findings are now.

        Findings with the codes `doubt` and the pages `unknown` are left out. On a PV dom0 nothing is mapped:
        what is noted as if it were does not count.
        """
        ledger, pv = self.engine.ledger, self.xen.p2m is None
        runs = [run for run in ledger.mapped if not pv and unknown.isdisjoint(pages_of([run]))]
        return {
            "xen": {str(s): (d.owner, d.flags.physfn) for s, d in sorted(self.xen.devices.items())},
            "pages": [] if pv else sorted(mapped_pages(self.xen) - unknown),
            "entries": sorted(
                str(without_words(entry))
                for entry in ledger_to_json(ledger)["entries"]
                if not (pv and "reserved" in entry["action"]) and not changes_nothing(entry)
            ),
            "mapped": list(map(without_words, mapped_to_json(runs))),
            "findings": sorted(
                (str(sbdf), finding.code, finding.text)
                for sbdf, finding in self.engine.findings
                if finding.code not in doubt
            ),
        }


def changes_nothing(entry):
    """Tell whether an entry is the same as none.

    A region that is restored was never withdrawn. A removal that is in doubt was not made: Xen is asked, and
    the entry of a removal ends when Xen does not list the function.
    """
    return (entry["action"], entry["state"]) in {("restore-reserved", "held"), ("remove-device", "doubtful")}


def pages_of(runs):
    return {page for run in runs for page in range(run.frames.start, run.frames.end)}


def without_words(value):
    """Leave out when it was, and which of several functions the action is told about.

    Pages that nobody wants and whose unmapping is refused are stale if the first look of the guards refused
    it, doubtful if the second one did; the finding is the same.
    """
    told = {"since", "reason"} | ({"sbdf"} if "reserved" in value.get("action", "") else set())
    found = {key: each for key, each in value.items() if key not in told}
    return found | ({"state": "unwanted"} if found["state"] in {"stale", "doubtful"} else {})


def law(function):
    """Run a law on EXAMPLES examples, the same ones each time."""
    chosen = settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=not os.environ.get("PCIPT_FRESH"),
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    return pytest.mark.timeout(36_000)(chosen(function))


ONE, OTHER = S("00:03.0"), S("00:04.0")  # they share a page
BRIDGE, BEHIND, FURTHER = BRIDGES[0], S("02:00.0"), S("03:00.0")
PVH = {"dom0": "pvh", "version": (4, 17), "unknown": set()}


@law
@given(made=WORLDS, history=HISTORIES)
@example(PVH, [[("renumber", BRIDGE, 4), ("give", FURTHER, 0)], [("give", BEHIND, 0)]])
@example(PVH, [[("renumber", BRIDGE, 4), ("give", BEHIND, 0)], [("take back", None, 0)]])
@example(PVH, [[("renumber", BRIDGE, 4), ("forget", S("03:00.0"), 0)],
               [("renumber", BRIDGE, 2), ("decode", S("03:00.0"), False)]])  # fmt: skip
@example({**PVH, "version": (4, 20, 2)}, [[("reset bus", BRIDGE, 0), ("renumber", BRIDGE, 4)]])
@example(PVH, [[("reset", FURTHER, 0)] * 2 + [("move", FURTHER, 0)],
               [("reset bus", BRIDGE, 0), ("pull", S("00:02.0"), 0)]])  # fmt: skip
@example({**PVH, "dom0": "pv"}, [[("renumber", BRIDGE, 4), ("forget", ONE, 0)]])
@example(PVH, [[("give", BEHIND, 1)], [("pull", ONE, 0), ("take back", None, 0)]])
@example({**PVH, "dom0": "pv"}, [[("renumber", BRIDGE, 4)], [("pull", ONE, 0)]])
@example({**PVH, "version": (4, 19, 6)}, [[("reset bus", BRIDGE, 0)] * 2,
               [("reset bus", BRIDGE, 0), ("give", FURTHER, 0)]])  # fmt: skip
@example(PVH, [[("move", BEHIND, 0), ("reset bus", BRIDGE, 0)],
               [("reset", BEHIND, 0), ("reset bus", BRIDGE, 0), ("plug", SLOTS[0], 0)]])  # fmt: skip
@example(PVH, [[("renumber", BRIDGE, 4), ("reset bus", BRIDGE, 0), ("renumber", BRIDGE, 2)]])
def test_idempotent(made, history):
    """Once the messages are worked off, a comparison of everything changes nothing.

    But it forgets complaints of Xen that are about a moment (`engine/views/complaints.py`); such a finding
    says so.
    """
    world = Telling(**made).told(history)
    before, changes = world.state(), len(world.xen.changes)
    before["findings"] = [told for told in before["findings"] if "pcipt resync forgets it" not in told[2]]
    outcomes = compare(world.engine)
    assert outcomes == [
        outcome
        for outcome in compare(world.engine)
        if outcome.result.value in {"refused", "planned"} or not_followed(outcome)
    ]
    assert len(world.xen.changes) == changes
    assert world.state() == before


def not_followed(outcome):
    """Tell whether a renumbered function was not announced, because a reset has cleared a BAR of its MSI-X.

    Nobody can read that where Linux has the function, so it is tried each time; Xen is not asked.
    """
    moved = isinstance(outcome.action, AddDevice) and outcome.action.moved_from is not None
    return moved and outcome.result is Result.FAILED and "has no address yet" in outcome.detail


@law
@given(made=WORLDS, history=HISTORIES, data=st.data())
def test_level_triggered_by_messages_in_any_order_and_doubled(made, history, data):
    expected, world = Telling(**made).told(history), Telling(**made)
    for batch in history:
        for event in batch:
            world.happen(event)
        heard = world.hear()
        doubled = data.draw(st.lists(st.sampled_from(heard), max_size=2)) if heard else []
        messages = data.draw(st.permutations([*heard, *doubled]))
        cut = data.draw(st.integers(0, len(messages)))
        world.deliver(messages[:cut], messages[cut:])
        world.deliver(messages[cut:])
        world.rest()
    unknown = world.shared_with_guests() | expected.shared_with_guests()
    assert world.state((), unknown) == expected.state((), unknown)


@pytest.mark.parametrize("together", [False, True])
def test_a_page_that_a_guests_function_shared_is_in_doubt_if_nobody_knows_who_left_dom0_first(together):
    world = Telling(**PVH)
    world.happen(("pull", ONE, 0))
    world.happen(("give", OTHER, 0))
    heard = world.hear()
    world.deliver(heard) if together else world.deliver_each(heard)
    world.rest()
    assert bool(world.shared_with_guests()) is together
    world.happen(("take back", None, 0))
    world.deliver_each(world.hear())
    world.rest()
    assert world.shared_with_guests() == set()
    assert world.mistakes() == ([], [])


def test_a_round_for_a_shared_region_leaves_open_announcements_of_other_devices_alone():
    made = {"dom0": "pvh", "version": (4, 17, 0), "unknown": set()}
    history = [[("renumber", BRIDGES[0], 4)], [("renumber", BRIDGES[0], 6), ("pull", S("00:03.0"), 0)]]
    expected, world = Telling(**made).told(history), Telling(**made)
    for batch in history:
        for event in batch:
            world.happen(event)
        heard = world.hear()
        world.deliver([], heard)
        world.deliver(heard)
        world.rest()
    assert world.state() == expected.state()


@pytest.mark.parametrize("version", [(4, 21, 0), (4, 21, 1)])
def test_what_xen_complains_about_while_pcipt_adds_a_function_is_told_in_each_order(version):
    """Xen is told of the function while its MSI-X table has no address: 4.21.0 hides the capability then."""
    function = S("00:02.0")
    history = [[("reset", function, 0), ("forget", function, 0)]]
    made = {**PVH, "version": version}
    expected, world = Telling(**made).told(history), Telling(**made)
    for event in history[0]:
        world.happen(event)
    world.deliver(world.hear())
    world.rest()
    assert world.state() == expected.state()
    told = {code for _, code, _ in world.state()["findings"]}
    assert ("capability-hidden" in told) is (version == (4, 21, 0))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("events", list(itertools.permutations([("pull", ONE, 0), ("decode", OTHER, False)])))
def test_a_shared_page_is_in_doubt_if_one_function_left_while_the_other_stopped_to_decode(events, order):
    """vPCI unmapped the page only if the function left first; messages do not tell which was first."""
    world = Telling(**PVH)
    for event in events:
        world.happen(event)
    heard = world.hear()
    for number in order:
        world.deliver([heard[number]])
    world.rest()
    assert health_of(world.engine) == "degraded"
    assert [code for _, code, _ in world.state()["findings"]] == ["stale-mapping"]


@pytest.mark.parametrize("first", [BRIDGE, ONE])
def test_a_record_that_keeps_a_region_stays_whoever_is_told_of_first(first):
    """A region has two devices; one leaves while the bus of the other is renumbered (PV)."""
    world = Telling(**{**PVH, "dom0": "pv"})
    world.happen(("renumber", BRIDGE, 4))
    world.happen(("pull", ONE, 0))
    for message in sorted(world.hear(), key=lambda message: message[1] != first):
        world.deliver([message])
    world.rest()
    assert BEHIND in world.xen.devices  # with its record Xen would unmap the region, which 04:00.0 needs


@law
@given(made=WORLDS, history=HISTORIES, data=st.data())
def test_level_triggered_where_messages_are_lost_and_everything_is_compared(made, history, data):
    expected, world = Telling(**made).told(history), Telling(**made)
    for batch in history:
        for event in batch:
            world.happen(event)
        heard = [message for message in world.hear() if data.draw(st.booleans())]
        world.engine.add_everything(Reason.LOST)  # the socket tells of a loss before it gives what is left
        world.deliver_each(heard)
        world.rest()
    # Nobody can read what vPCI has unmapped, nor what it has of a BAR that a reset has cleared.
    doubt = {"messages-lost", "stale-mapping", "not-mapped", "bar-drift", "reset-behind-vpci"}
    unknown = world.doubtful() | expected.doubtful()
    assert world.state(doubt, unknown) == expected.state(doubt, unknown)
    if made["dom0"] == "pvh":
        assert health_of(world.engine) == "degraded"  # what came and left unseen cannot be known


@law
@given(made=WORLDS, history=HISTORIES, subject=st.sampled_from(ENDPOINTS), silent=st.sampled_from(ENDPOINTS))
def test_local(made, history, subject, silent):
    """Work for one function neither reads nor concludes about another one that does not depend on it."""
    world = Telling(**made).told(history)
    engine = world.engine
    if depends(engine, subject, silent):
        return
    config = world.hardware.config(silent)
    if config is None or silent in world.given:
        return
    world.xen.write_config(silent, 0x04, 2, int.from_bytes(config[4:6], "little") ^ 2)  # nobody tells of it
    place = engine.views.state.place_at(silent)
    before = engine.raws.get(silent), engine.ledger.mapped.of(place), told_of(engine, silent)
    world.deliver([(Reason.OWNER, subject), (Reason.WRITTEN, subject)])
    assert (engine.raws.get(silent), engine.ledger.mapped.of(place), told_of(engine, silent)) == before


def told_of(engine, sbdf):
    return [finding for about, finding in engine.findings if about == sbdf]


def depends(engine, one, other):
    """Tell whether two functions have to do with each other: by place, pages or a reserved region.

    A BAR that is written back may come to lie where any function of the bus has one: guards read them all,
    also if the BAR is that of a function which shares pages with one of the two.
    """
    if one == other or any(rewrites_of(engine.views, engine.machine.functions)):
        return True
    bars, regions = engine.views.state.bars, engine.views.reserved
    pages, others = set(bars.pages_of(one)), set(bars.pages_of(other))
    for sbdf, found in ((one, pages), (other, others)):
        place = engine.views.state.place_at(sbdf)
        found.update(run.frames for run in engine.ledger.mapped.of(place) if place is not None)
    shared = any(a.overlaps(b) for a in pages for b in others)
    linked = {*regions.of(one)} & {*regions.of(other)}
    return shared or bool(linked) or one.bus != 0 or other.bus != 0  # behind the same bridge


@law
@given(made=WORLDS, history=HISTORIES, data=st.data())
def test_restartable(made, history, data):
    """The service is killed at a saving or after a call to Xen, and started again: the end is the same.

    So it is if a function comes and leaves before the next start.
    """
    expected, world = Telling(**made), Telling(**made)
    world.rest()
    for batch in history:
        visits = data.draw(st.lists(st.tuples(st.sampled_from(SLOTS), st.integers(0, 7)), max_size=1))
        expected.told([batch])
        for event in batch:
            world.happen(event)
        after, late, call = data.draw(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()))
        if call:
            world.xen.die_at = world.xen.changed + after
        else:
            world.store.die_at, world.store.die_after = world.store.saved + after, late
        world.deliver_each(world.hear())
        world.store.die_at = world.xen.die_at = None
        world.rest()
        for slot, number in visits:
            expected.visit(slot, number, alone=False)
            world.visit(slot, number, alone=True)
    undecided = world.undecided() | expected.undecided()
    doubt = {"stale-mapping", "assign-failed", "given-up"} if undecided else ()
    assert world.state(doubt, undecided) == expected.state(doubt, undecided)


@pytest.mark.parametrize("version", [(4, 19, 3), (4, 19, 4), (4, 20, 4), (4, 21, 0)])
def test_a_service_that_starts_after_a_renumbering_makes_no_orphan_of_a_function_that_was_reset(version):
    """Xen 4.19.4 to 4.20 cannot take a function whose MSI-X table has no address; nobody has read that."""
    history = [[("reset", BEHIND, 0), ("renumber", BRIDGE, 4)]]
    expected, world = (Telling(**{**PVH, "version": version}) for _ in range(2))
    expected.told(history)
    world.rest()
    for event in history[0]:
        world.happen(event)
    world.hear()
    world.start()
    world.rest()
    assert world.state() == expected.state()
    assert OwnerKind.NOBODY not in {device.owner.kind for device in world.xen.devices.values()}


@pytest.mark.parametrize("version", [(4, 20, 4), (4, 21, 0), (4, 21, 1), (4, 22, 0)])
@pytest.mark.parametrize("later", [[], [("pull", ONE, 0)]])
@pytest.mark.parametrize("kill", [*itertools.product(range(1, 5), [False, True]), None])
def test_a_restart_knows_what_xen_complained_about_and_what_an_add_left(version, later, kill):
    """Xen is told of a function that a reset has cleared; Xen 4.21 leaves decode off then."""
    history = [[("reset", S("00:02.0"), 0), ("forget", S("00:02.0"), 0)], *filter(None, [later])]
    expected, world = (Telling(**{**PVH, "version": version}) for _ in range(2))
    expected.told(history)
    for batch in history:
        for event in batch:
            world.happen(event)
        if kill is None:
            world.xen.die_at = world.xen.changed + 1
        else:
            world.store.die_at, world.store.die_after = world.store.saved + kill[0], kill[1]
        world.deliver_each(world.hear())
        world.store.die_at = world.xen.die_at = None
        world.rest()
    assert world.state() == expected.state()
    told = {code for _, code, _ in world.state()["findings"]}
    assert ("capability-hidden" in told) is (version == (4, 21, 0))


@law
@example(PVH, [[("give", S("00:03.0"), 1)]], [(Op.KEY, 1, 0)])
@example(PVH, [[("give", S("00:03.0"), 1), ("give", S("00:02.0"), 0)]], [(Op.KEY, 1, 0)])
@example(PVH, [[("decode", S("00:06.0"), False), ("give", S("00:06.0"), 0)]], [])
@example(
    {**PVH, "version": (4, 19, 0)},
    [[("renumber", BRIDGE, 4), ("give", BEHIND, 0)], [("take back", None, 0), ("renumber", BRIDGE, 2)]],
    [],
)
@example(PVH, [[("give", OTHER, 0), ("decode", ONE, False), ("take back", None, 0)]], [])
@given(
    made=WORLDS, history=HISTORIES,
    faults=st.lists(st.tuples(st.sampled_from(list(Op)), st.integers(1, 6), st.integers(0, 3)), max_size=3),
)  # fmt: skip
def test_honest(made, history, faults):
    """While the service says "healthy", Xen has what the definition asks for, whatever failed before."""
    world = Telling(**made)
    for op, call, pages in faults:
        world.xen.fail(op, 16, call=call, pages=pages)
    for batch in history:
        for event in batch:
            world.happen(event)
        world.deliver_each(world.hear())
        if health_of(world.engine) == "healthy":
            assert len(world.engine.queue) == 0 or world.engine.next_due() > 0
            assert made["dom0"] == "pv" or world.mistakes() == ([], [])
            assert set(world.linux.raws) == set(world.xen.devices)
