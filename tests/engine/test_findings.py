"""Findings kept by function: what is new, what is gone, how many."""

import errno

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.daemon.settings import Settings
from pcipt.engine.findings import Findings
from pcipt.engine.open_actions import OpenActions
from pcipt.errors import InputError
from pcipt.host.iomem import MemoryReading, NamedRange
from pcipt.pci import Address, Finding, Frames, Gfn, Range, Resource, parse_sbdf
from pcipt.remap.actions import AddDevice, MapMmio, Outcome, Result
from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, S, Stage, compare
from tests.machines import function
from tests.xen.devices import device

NIC, DISK = parse_sbdf("01:00.0"), parse_sbdf("02:00.0")
ONE, OTHER = Finding("ghost", "one"), Finding("orphan", "other")


def test_the_services_own_come_first_then_addresses():
    held = Findings()
    held.put(DISK, [ONE])
    held.put(NIC, [OTHER])
    held.put(None, [ONE])
    assert held.all() == [(None, ONE), (NIC, OTHER), (DISK, ONE)]
    assert len(held) == 3


def test_news_are_told_once():
    held = Findings()
    held.put(NIC, [ONE])
    assert held.news() == ([(NIC, ONE)], [])
    held.put(NIC, [ONE])
    assert held.news() == ([], [])
    held.put(NIC, [OTHER])
    assert held.news() == ([(NIC, OTHER)], [(NIC, ONE)])


def test_what_came_and_went_between_two_questions_is_no_news():
    held = Findings()
    held.put(NIC, [ONE])
    held.put(NIC, [])
    assert held.news() == ([], [])
    assert len(held) == 0


@given(st.lists(st.tuples(st.sampled_from([None, NIC, DISK]), st.lists(st.sampled_from([ONE, OTHER])))))
def test_news_add_up_to_what_is_held(changes):
    held, told = Findings(), set()
    for number, (subject, findings) in enumerate(changes):
        held.put(subject, findings)
        if number % 3 == 0:
            new, gone = held.news()
            told = told - set(gone) | set(new)
    new, gone = held.news()
    assert told - set(gone) | set(new) == set(held.all())
    assert len(held) == len(held.all())


# What is wrong in single functions and in the service, on a machine


GUEST = Finding("guest-leftover", "a guest keeps it")
NAMED = [S("00:00.0"), S("00:1c.0"), S("01:00.0"), S("01:00.1")]


def begun(**more):
    engine = Stage(**more).start()
    compare(engine)
    return engine


def found(engine, scope, open_actions=None):
    held = Findings()
    held.find_in_functions(engine.views, open_actions or OpenActions(), scope)
    return held


def codes(held):
    return [(None if sbdf is None else str(sbdf)[5:], finding.code) for sbdf, finding in held.all()]


def refused(action, why="a rule says so"):
    held = OpenActions()
    held.replace([action], [Outcome(action, Result.REFUSED, why)], [action.sbdf], listed=None)
    return held


OBSERVED = Settings("observe")


def test_a_disagreement_is_found_for_the_functions_of_the_scope_alone():
    engine = begun(known=["00:00.0", "00:1c.0", "01:00.5"], settings=OBSERVED)
    assert codes(found(engine, [NIC])) == [("01:00.0", "unknown-to-xen")]
    assert codes(found(engine, [S("01:00.5")])) == [("01:00.5", "ghost")]
    assert codes(found(engine, [S("00:00.0")])) == []
    assert [code for _, code in codes(found(engine, iter([*NAMED, S("01:00.5")])))] == [
        "unknown-to-xen",
        "unknown-to-xen",
        "ghost",
    ]


def test_a_disagreement_says_why_it_was_not_mended():
    engine = begun(known=["00:00.0"], settings=OBSERVED)
    (finding,) = [each for _, each in found(engine, [NIC], refused(AddDevice(NIC, ""))).all()]
    assert finding.text.endswith("; not repaired: a rule says so")


def test_while_xen_cannot_be_asked_there_are_no_disagreements():
    engine = begun(known=["00:00.0"], settings=OBSERVED)
    engine.views.host.raws.pop(NIC)  # which the engine has not read again
    stage_xen = engine.views._xen
    stage_xen.fail(Op.KNOWN, errno.EBUSY)
    assert engine.views.ask([S("00:00.0")]) is False
    assert codes(found(engine, NAMED)) == []


def test_an_action_on_pages_that_is_open_is_found():
    held = found(begun(), [NIC], refused(MapMmio(NIC, "", "nic", 0, Frames(Gfn(0xC0000), 1))))
    assert codes(held) == [("01:00.0", "not-mapped")]
    assert codes(found(begun(), [NIC], refused(AddDevice(NIC, "")))) == []  # it has nothing on pages


def test_the_findings_of_a_scope_replace_those_of_before():
    engine = begun()
    held = Findings()
    held.find_in_functions(engine.views, refused(MapMmio(NIC, "", "nic", 0, Frames(Gfn(1), 1))), [NIC, DISK])
    held.put(DISK, [ONE])
    held.find_in_functions(engine.views, OpenActions(), [NIC])
    assert held.all() == [(DISK, ONE)]
    held.find_in_functions(engine.views, OpenActions(), [DISK])
    assert held.all() == []


def test_what_guests_keep_is_found_with_the_function():
    engine = begun()
    engine.views.guests.findings[NIC] = (GUEST,)
    assert found(engine, NAMED).all() == [(NIC, GUEST)]


def test_a_write_that_xen_ignored_is_found():
    raws = [device("00:00.0"), device("01:00.0", (0xFE20_0000, 0x4000), driver="e1000e")]
    stage = BusStage(raws)
    engine = stage.start()
    compare(engine)
    stage.write("01:00.0", 0x10, 4, 0xFE80_0000)
    stage.settle(engine)
    assert codes(found(engine, [NIC, S("00:00.0")])) == [("01:00.0", "bar-write-ignored")]


def drifted(address):
    """Give a function whose BAR is not where Linux believes it to be."""
    raw = device(address, (0xFE00_0000, 0x1000))
    data = bytearray(raw.config)
    data[0x10:0x14] = (0xFE80_0000).to_bytes(4, "little")
    return attrs.evolve(raw, config=bytes(data))


def test_faults_of_the_hardware_are_found_and_notes_are_not():
    other = S("10000:00:00.0")
    engine = begun(raws=[function("00:00.0"), drifted(str(other))])
    notes = [finding.is_note for finding in engine.machine.functions[other].findings]
    assert {True, False} == set(notes)
    assert codes(found(engine, [other])) == [(str(other)[5:], "bar-drift")]


@pytest.mark.parametrize("halves", [(0xFFFF_FFFF,), (0xFFFF_FFFF, 0xFFFF_FFFF)])
def test_a_bar_that_linux_sizes_has_no_finding_while_it_does(halves):
    """Decoding off, ones, and the service reads before Linux writes the address back."""
    stage = BusStage([device("00:00.0"), device("01:00.0", (0x38_FE20_0000, 0x4000, "64"))])
    engine = stage.start()
    compare(engine)
    stage.write("01:00.0", 0x04, 2, 0)
    for number, value in enumerate(halves):
        stage.write("01:00.0", 0x10 + 4 * number, 4, value)
    stage.settle(engine)
    bar = engine.machine.functions[NIC].bars[0]
    assert (bar.address & 0xFFFF_FFFF, bar.claimed.start) == (0xFFFF_C000, 0x38_FE20_0000)
    assert "bar-drift" not in dict(map(reversed, codes(found(engine, [NIC]))))


def unassigned(raw, index, flags=0x2000_0200):
    """Give the function a line that Linux could not assign (IORESOURCE_UNSET)."""
    lines = list(raw.resources) + [Resource(0, 0, 0)] * (13 - len(raw.resources))
    lines[index] = Resource(0, 0x40_0000, flags)
    return attrs.evolve(raw, resources=tuple(lines))


@pytest.mark.parametrize("known", [True, False])
def test_the_windows_of_root_buses_count_if_the_memory_map_tells_them(known):
    raws = [device("00:00.0"), unassigned(device("00:05.0", command=0), 0)]
    engine = begun(raws=raws, known=[str(raw.sbdf) for raw in raws])
    span = Range(Address(0xC000_0000), 0x1000_0000)
    line = NamedRange(span, "PCI Bus 0000:00")

    def memory():
        if not known:
            raise InputError("/proc/iomem", "it cannot be read")
        return MemoryReading((line,), (), ())

    engine.views.host.memory = memory
    ((_, finding),) = found(engine, [parse_sbdf("00:05.0")]).all()
    assert ("the memory window of the root bus 0000:00 above it has enough room" in finding.text) is known
    assert ("pci=realloc" in finding.text) is not known


def test_a_bar_without_an_address_is_told_with_the_window_that_is_short():
    port = device("00:1c.0", header=1, buses=(0, 1, 1), window=(0xFE20, 0xFE20))
    raws = [device("00:00.0"), port, unassigned(device("01:00.0", command=0, parent="00:1c.0"), 0)]
    engine = begun(raws=raws, known=[str(raw.sbdf) for raw in raws])
    ((_, finding),) = found(engine, [NIC]).all()
    assert finding.code == "bar-unassigned"
    assert (
        "the memory window of 0000:00:1c.0 above it has a largest hole of 1M; it is 3M too small"
        in finding.text
    )
    assert "; what helps: boot dom0's Linux with pci=realloc" in finding.text


def test_disagreements_come_before_open_actions_and_those_before_what_hardware_shows():
    engine = begun(raws=[function("00:00.0"), drifted("01:00.0")], known=["00:00.0"], settings=OBSERVED)
    engine.views.guests.findings[NIC] = (GUEST,)
    held = found(engine, [NIC], refused(MapMmio(NIC, "", "nic", 0, Frames(Gfn(1), 1))))
    assert [code for _, code in codes(held)] == [
        "unknown-to-xen",
        "not-mapped",
        "guest-leftover",
        "bar-drift",
    ]


def test_functions_that_xen_does_not_list_are_counted_while_linux_has_them():
    stage = Stage(known=["00:00.0", "00:1c.0"], settings=OBSERVED)
    engine = stage.start()
    compare(engine)
    held = found(engine, [*NAMED, S("01:00.5")])
    assert held.unlisted == {NIC, S("01:00.1")}
    stage.xen.kernel_add(NIC)
    stage.pull("01:00.1")
    engine.views.read([S("01:00.1")])
    engine.views.ask([NIC])
    held.find_in_functions(engine.views, OpenActions(), [S("00:00.0")])
    assert held.unlisted == {NIC, S("01:00.1")}
    held.find_in_functions(engine.views, OpenActions(), NAMED)
    assert held.unlisted == set()


def test_the_service_tells_its_own_then_the_machines_then_doubts_then_troubles():
    engine = begun()
    views, held = engine.views, Findings()
    held.find_in_service(views, [ONE])
    assert held.all() == [(None, ONE)]
    views.memory_findings = (OTHER,)
    views.memory.ledger.messages_lost = "yesterday"
    views._xen.fail(Op.KNOWN, errno.EBUSY)
    views.ask([NIC])
    views.reserved.trouble = Finding("regions-not-asked", "no")
    held.find_in_service(views, [ONE])
    assert codes(held) == [
        (None, "ghost"),
        (None, "orphan"),
        (None, "messages-lost"),
        (None, "xen-not-asked"),
        (None, "regions-not-asked"),
    ]
    text = held.all()[2][1].text
    assert text.startswith("around yesterday hot-plug messages were lost, or the service did not run ")
    assert text.endswith("only a reboot ends this finding")
    views.ask([NIC])
    held.find_in_service(views, [])
    assert (None, "xen-not-asked") not in codes(held)
    assert (None, "ghost") not in codes(held)


def test_the_same_finding_twice_counts_once_and_the_first_place_holds():
    held = Findings()
    held.put(NIC, [OTHER, ONE, OTHER])
    assert (held.all(), len(held)) == ([(NIC, OTHER), (NIC, ONE)], 2)


def test_the_subjects_are_the_functions_that_have_findings():
    held = Findings()
    held.put(None, [ONE])
    held.put(NIC, [ONE])
    held.put(DISK, [ONE])
    held.put(DISK, [])
    assert held.subjects == [NIC]


def test_only_what_was_not_there_before_is_news():
    held = Findings()
    held.put(NIC, [ONE])
    held.news()
    held.put(NIC, [ONE, OTHER])
    assert held.news() == ([(NIC, OTHER)], [])
    held.put(NIC, [OTHER])
    assert held.news() == ([], [(NIC, ONE)])


def test_the_count_follows_each_change():
    held = Findings()
    for findings, count in (([ONE, OTHER], 2), ([ONE], 1), ([ONE], 1), ([OTHER, ONE], 2), ([], 0), ([], 0)):
        held.put(NIC, findings)
        assert len(held) == count
