"""The three views: what a reading changes, what Xen is asked, what follows for each function."""

import errno

import attrs
import pytest

from pcipt.daemon.settings import Settings
from pcipt.engine.settle import take_over_mappings
from pcipt.engine.views.vpci_picture import ignored_of
from pcipt.errors import UnsupportedError
from pcipt.pci import Address, Frames, Gfn
from pcipt.remap.actions import AddDevice, MapMmio
from pcipt.remap.desired import By
from pcipt.remap.ignored import IgnoredWrite
from pcipt.remap.life import Event, State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.view import XenView
from pcipt.xen.interface import Owner, OwnerKind, Permissions
from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, S, Stage, compare, usual_raws
from tests.machines import bridge, function
from tests.remap.devices import gone
from tests.xen.devices import device

HOST, PORT, NIC, VF, LATE, AWAY = map(S, ("00:00.0", "00:1c.0", "01:00.0", "01:00.1", "02:00.0", "05:00.0"))
GUEST, OTHER_GUEST, QUARANTINE = (
    Owner(OwnerKind.DOMAIN, 3),
    Owner(OwnerKind.DOMAIN, 4),
    Owner(OwnerKind.QUARANTINE),
)
OBSERVED = Settings("observe")


def begun(raws=None, **more):
    """Give a stage and the views of an engine that has compared everything."""
    stage = Stage(raws, **more)
    engine = stage.start()
    compare(engine)
    stage.xen.calls.clear()
    return stage, engine.views


def bound(driver, raws=None):
    return [attrs.evolve(raw, driver=driver) if raw.sbdf == NIC else raw for raw in raws or usual_raws()]


def asked(stage, op=Op.KNOWN):
    return [sbdf for call in stage.xen.calls if call.op is op for sbdf in call.functions]


# Reading


def test_a_reading_tells_what_is_different_and_reads_nothing_else():
    stage, views = begun()
    assert views.read([NIC, VF]) == frozenset()
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    stage.plug(function("00:00.0", command=0x2))
    assert NIC in views.read([NIC])
    assert views.machine.functions[HOST].command == 0
    assert views.read([HOST]) == {HOST}


def test_behind_a_bridge_whose_window_has_changed_all_is_different_and_nothing_is_read():
    stage, views = begun()
    raw = stage.host.raws[PORT]
    data = bytearray(raw.config)
    data[0x20:0x24] = bytes.fromhex("20fe90fe")
    stage.plug(attrs.evolve(raw, config=bytes(data)))
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    assert views.read([PORT]) == {PORT, NIC, VF}
    assert views.machine.functions[NIC].command == 0x6


def test_behind_a_bridge_whose_numbers_have_changed_all_is_read_again():
    stage, views = begun()
    stage.plug(bridge("00:1c.0", 5, 9))
    stage.plug(gone(stage.host.raws[NIC]))
    read, noted = stage.host.read_function, []
    stage.host.read_function = lambda sbdf: (noted.append(sbdf), read(sbdf))[1]
    assert views.read([PORT, NIC]) == {PORT, NIC, VF}
    assert sorted(noted) == [PORT, NIC, VF]  # each once
    assert views.machine.functions[NIC].answers is False


def test_a_bridge_that_is_as_before_concerns_nothing_behind_it():
    stage, views = begun()
    stage.plug(attrs.evolve(stage.host.raws[PORT], driver="pcieport"))
    assert views.read([PORT]) == {PORT}


def test_a_bridge_that_comes_or_leaves_is_read_alone():
    stage, views = begun()
    stage.pull("00:1c.0")
    assert PORT in views.read([PORT])
    stage.plug(bridge("00:1c.0", 1, 4))
    assert PORT in views.read([PORT])


def test_all_addresses_are_those_that_linux_has_or_had_in_order():
    stage, views = begun()
    stage.pull("01:00.0")
    stage.plug(function("02:00.0", parent="00:1c.0"))
    stage.plug(function("00:01.0"))
    assert views.all_addresses() == [HOST, S("00:01.0"), PORT, NIC, VF, LATE]


def test_what_was_found_different_is_given_once():
    _, views = begun()
    views.different |= {NIC}
    assert views.take_different() == {NIC}
    assert views.take_different() == set()


@pytest.mark.parametrize("known_before", [True, False])
def test_the_boot_snapshot_is_made_once(known_before):
    stage = Stage()
    if not known_before:
        stage.store.snapshot = None
    views, before = stage.start().views, stage.store.snapshot
    read, tables = stage.host.acpi_tables, []
    stage.host.acpi_tables = lambda: (tables.append(1), read())[1]
    views.load()
    assert views.know_boot() is not known_before
    assert (views.memory.boot == before) is known_before
    before = views.memory.boot
    assert views.memory.boot.functions == {HOST, PORT, NIC, VF}
    assert views.know_boot() is False
    assert views.memory.boot is before
    assert len(tables) == 1


def test_where_bridges_below_each_other_have_new_numbers_each_function_is_read_once():
    raws = [
        function("00:00.0"),
        bridge("00:1c.0", 2, 9),
        bridge("02:01.0", 3, 3, parent="00:1c.0"),
        function("03:00.0", parent="02:01.0"),
    ]
    stage, views = begun(raws)
    stage.plug(bridge("00:1c.0", 2, 8))
    stage.plug(bridge("02:01.0", 4, 4, parent="00:1c.0"))
    stage.plug(function("03:00.0", parent="02:01.0", command=2))
    read, noted = stage.host.read_function, []
    stage.host.read_function = lambda sbdf: (noted.append(sbdf), read(sbdf))[1]
    views.read([HOST, PORT])
    assert sorted(noted) == [HOST, PORT, S("02:01.0"), S("03:00.0")]
    assert views.machine.functions[S("03:00.0")].command == 2


# Asking Xen


@pytest.mark.parametrize("known", [True, False])
def test_reserved_regions_are_asked_for_all_that_need_some_or_did_at_boot(known):
    stage, views = begun()
    views.memory.removed.add(S("0b:00.0"))
    if known:
        views.memory.boot = attrs.evolve(views.memory.boot, functions=frozenset({S("0c:00.0")}))
    else:
        views.memory.boot = None
    told = []
    views.reserved.read = told.append
    views.ask_everything()
    assert told == [{HOST, PORT, NIC, VF, S("0b:00.0"), *([S("0c:00.0")] if known else [])}]
    assert S("0b:00.0") in asked(stage)


def test_each_question_about_functions_learns_their_regions():
    _, views = begun()
    told = []
    views.reserved.learn = told.append
    views.ask([NIC])
    assert told == [[NIC]]


@pytest.mark.parametrize("everything", [True, False])
def test_a_machine_whose_owners_nobody_tells_has_no_iommu(everything):
    stage, views = begun()
    assert views.remembered().iommu.absent is False
    stage.xen._list.iommu = None
    assert views.ask_everything() if everything else views.ask([NIC])
    assert views.remembered().iommu.absent is True


def test_xen_is_asked_about_all_that_it_may_list():
    stage, views = begun()
    stage.pull("01:00.1")
    views.read([VF])
    views.memory.ledger.step(AddDevice(S("08:00.0"), "why"), Event.INTEND)
    views.state.renumbered[NIC] = S("09:00.0")
    views.state.renumbered[HOST] = None
    stage.xen.give(S("0a:00.0"), GUEST)
    views.ask([S("0a:00.0")])
    stage.xen.calls.clear()
    assert views.ask_everything() is True
    assert {HOST, NIC, VF, S("08:00.0"), S("09:00.0"), S("0a:00.0"), S("01:1f.7")} <= set(asked(stage))


def test_removed_functions_that_xen_has_forgotten_are_forgotten():
    stage, views = begun()
    views.memory.removed |= {NIC, LATE, AWAY}
    views.ask([LATE, NIC])
    assert views.memory.removed == {NIC, AWAY}
    views.ask_everything()
    assert views.memory.removed == {NIC}
    stage.xen.forget(NIC)
    views.ask([NIC])
    assert views.memory.removed == set()


def test_while_xen_cannot_be_asked_the_functions_are_noted_until_it_can():
    stage, views = begun()
    views.memory.removed.add(NIC)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    assert views.ask([NIC, VF]) is False
    assert (views.not_asked, views.memory.removed) == ({NIC, VF}, {NIC})
    assert views.trouble.code == "xen-not-asked"
    assert views.ask([VF]) is True
    assert (views.not_asked, views.trouble) == ({NIC}, None)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    views.ask([VF])
    assert views.not_asked == {NIC, VF}


def test_about_functions_that_xen_could_not_be_asked_about_nothing_is_concluded():
    stage, views = begun()
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    views.ask([NIC])
    assert views.desired(NIC).hold_reason == "Xen cannot be asked about it now"
    assert views.desired(HOST).hold_reason is None
    views.memory.outside_window[views.state.place_at(NIC)] = frozenset({1})
    assert views.desired(NIC).outside_window == {1}


def test_xen_that_fails_about_everything_concludes_nothing():
    stage, views = begun()
    views.memory.removed.add(LATE)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    assert views.ask_everything() is False
    assert views.memory.removed == {LATE}


def test_a_function_that_leaves_a_guest_is_remembered_and_the_guests_are_looked_at():
    stage, views = begun(bound("pciback"))
    stage.xen.give(NIC, GUEST)
    views.ask([NIC], owners=True)
    assert views.memory.left_guests == {}
    looked = []
    views.look_at_guests = lambda: looked.append(dict(views.memory.left_guests))
    views.ask([NIC], owners=True)
    assert looked == []
    stage.xen.give(NIC, OTHER_GUEST)
    views.ask([NIC], owners=True)
    assert looked == [{NIC: 3}]
    stage.xen.give(NIC, QUARANTINE)
    views.ask([NIC], owners=True)
    assert looked == [{NIC: 3}, {NIC: 4}]


@pytest.mark.parametrize(("owners", "found", "looks"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_guests_are_looked_at_again_while_they_keep_something(owners, found, looks):
    _, views = begun()
    looked = []
    views.look_at_guests = lambda: looked.append(1)
    views.guests.findings = {VF: ()} if found else {}
    views.ask([NIC], owners=owners)
    assert len(looked) == looks


@pytest.mark.parametrize(("owners", "owner"), [(True, "quarantine"), (False, "dom0")])
def test_the_owner_of_a_given_function_is_asked_for_if_it_may_have_changed(owners, owner):
    stage, views = begun(bound("pciback"))
    stage.xen.give(NIC, QUARANTINE)
    views.ask([NIC])
    assert views.owners([NIC]) == {NIC: "dom0"}
    views.ask([NIC], owners=owners)
    assert views.owners([NIC, HOST, LATE]) == {NIC: owner}


@pytest.mark.parametrize(("driver", "given"), [("pciback", [NIC]), ("e1000e", []), (None, [])])
def test_functions_of_pciback_are_given_away(driver, given):
    _, views = begun(bound(driver))
    assert views.given([HOST, NIC, LATE]) == given


def test_only_membership_in_the_list_is_asked_for_where_nothing_else_can_have_changed():
    stage, views = begun()
    stage.xen.forget(NIC)
    assert views.ask_if_listed([NIC, VF]) == {NIC}
    assert NIC in views.view.known
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    assert views.ask_if_listed([NIC]) is None


def test_looking_at_guests_gives_those_that_were_looked_at():
    stage, views = begun()
    stage.xen.give(NIC, GUEST)
    views.ask([NIC])
    assert views.look_at_guests() == []  # it may reach nothing
    stage.xen.grants[3] = Permissions((), ())
    assert views.look_at_guests() == [3]


# Addresses


def test_a_function_has_every_address_at_which_xen_may_list_it():
    _, views = begun()
    assert views.addresses(NIC) == {NIC}
    views.state.renumbered[NIC] = AWAY
    assert views.addresses(NIC) == {NIC, AWAY}
    views.memory.ledger.step(AddDevice(S("06:00.0"), "why", moved_from=NIC), Event.INTEND)
    assert views.announced_at() == {NIC: (S("06:00.0"),)}
    assert views.addresses(NIC) == {NIC, AWAY, S("06:00.0")}
    views.state.renumbered[NIC] = None
    assert views.addresses(NIC) == {NIC, S("06:00.0")}
    assert views.addresses(LATE) == {LATE}


def test_xen_is_asked_at_every_address_of_a_function():
    stage, views = begun()
    views.state.renumbered[NIC] = AWAY
    views.ask([NIC])
    assert set(asked(stage)) == {NIC, AWAY}


def test_a_hold_covers_every_address_of_a_function():
    _, views = begun()
    views.state.renumbered[NIC] = AWAY
    views.not_asked = frozenset({AWAY})
    assert views.desired(NIC).hold_reason == "Xen cannot be asked about it now"


@pytest.mark.parametrize(
    ("about", "disagree"), [(HOST, False), (NIC, True), (VF, True), (LATE, True), (AWAY, False)]
)
def test_linux_and_xen_disagree_where_only_one_has_a_function_or_it_has_no_owner(about, disagree):
    stage, views = begun(known=["00:00.0", "00:1c.0", "01:00.1", "02:00.0"], settings=OBSERVED)
    stage.xen.give(VF, Owner(OwnerKind.NOBODY))
    views.ask([VF, LATE])
    assert views.disagree_about(about) is disagree


# Pages


SILENT = S("00:06.0")


def pvh():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))], settings=OBSERVED)
    engine = stage.start()
    compare(engine)
    return stage, engine.views


def run(views, by, *, place=None, sbdf=SILENT, state=State.HELD, at=0xFD000):
    return MappedRun(place or views.state.place_at(sbdf), sbdf, 1, Frames(Gfn(at), 1), by, "then", state)


def test_pages_that_vpci_mapped_are_taken_over_when_xen_forgets_the_function():
    stage, views = pvh()
    views.memory.mapped.put(run(views, By.US))
    views.memory.mapped.put(run(views, By.XEN, sbdf=HOST, at=0xFD010))
    before = list(views.memory.mapped)
    take_over_mappings(views, [SILENT, HOST, LATE], lambda: "now")
    assert list(views.memory.mapped) == before
    stage.xen.forget(SILENT)
    views.ask([SILENT])
    take_over_mappings(views, [HOST], lambda: "now")
    assert list(views.memory.mapped) == before
    take_over_mappings(views, [SILENT], lambda: "now")
    taken = {(each.sbdf, each.by) for each in views.memory.mapped}
    assert taken == {(SILENT, By.US), (HOST, By.XEN)}
    assert {each.since for each in views.memory.mapped} == {each.since for each in before}


@pytest.mark.parametrize(
    ("state", "there", "stale"),
    [
        (State.HELD, True, False),
        (State.DOUBTFUL, True, False),
        (State.STALE, True, True),
        (State.HELD, False, True),
        (State.STALE, False, True),
    ],
)
def test_pages_are_stale_whose_function_has_left_or_that_nobody_needs(state, there, stale):
    _, views = pvh()
    place = None if there else "left"
    assert views.state.is_stale(run(views, By.US, place=place, state=state)) is stale


def test_what_a_function_needs_follows_from_all_three_views():
    _, views = pvh()
    assert views.desired(LATE) is None
    (bar,) = views.desired(SILENT).bars
    assert (bar.spans, bar.by) == ((Frames(Gfn(0xFE000), 2),), By.XEN)
    assert views.desired(SILENT).outside_window == frozenset()
    views.memory.outside_window[views.state.place_at(SILENT)] = frozenset({0})
    (bar,) = views.desired(SILENT).bars
    assert (bar.by, bar.unsure) == (By.US, True)


def test_a_pv_dom0_has_no_ignored_writes():
    written = []
    for dom0 in ("pv", "pvh"):
        stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))], dom0=dom0)
        engine = stage.start()
        compare(engine)

        class Intents:
            def ignored(self, _function):
                return []

            def among(self, functions):
                return [IgnoredWrite("", each.sbdf, 0, Address(0), Address(0), 0x2000) for each in functions]

        engine.memory.intents = Intents()
        written.append([write.sbdf for write in ignored_of(engine.views, [SILENT, LATE])])
    assert written == [[], [SILENT]]


# Facts for the guards


def test_the_facts_are_read_again_right_before_an_action():
    stage, views = begun()
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    stage.xen.forget(NIC)
    facts = views.facts(AddDevice(NIC, "why"))
    assert facts.machine.functions[NIC].command == 0x2
    assert NIC not in facts.xen.known
    assert NIC in views.different


def test_there_are_no_facts_while_xen_cannot_be_asked():
    stage, views = begun()
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    with pytest.raises(UnsupportedError, match=r"^asking Xen: .*cannot compare them with Xen$"):
        views.facts(AddDevice(NIC, "why"))


def test_the_facts_hold_what_the_memory_holds():
    _, views = pvh()
    views.memory.outside_window["place"] = frozenset({2})
    facts = views.remembered()
    assert (facts.outside_window("place"), facts.outside_window("other")) == ({2}, frozenset())
    assert (facts.pvh, facts.mapped, facts.bars) == (True, views.memory.mapped, views.state.bars)
    assert facts.protected.why(Frames(Gfn(0x200), 1)) is not None


# A dry run


def test_the_views_of_a_dry_run_have_a_memory_and_an_expectation_of_their_own():
    _, views = begun()
    dry = views.rehearsed()
    dry.expect(XenView(frozenset({LATE})))
    dry.memory.ledger.step(MapMmio(NIC, "why", "nic", 0, Frames(Gfn(1), 1)), Event.INTEND)
    assert (set(dry.view.known), set(views.view.known)) == ({LATE}, {HOST, PORT, NIC, VF})
    assert (len(dry.memory.mapped), len(views.memory.mapped)) == (1, 0)
    assert dry.state is views.state
