"""Which pages each function needs, and who maps them: one row a case."""

import attrs
import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import decode_machine
from pcipt.remap.desired import By, desired_of, gone, place_of
from pcipt.remap.guard.protected import protected_ranges
from tests.machines import bridge, function
from tests.remap.devices import S, device, known, port, with_vfs
from tests.remap.devices import gone as without_answer
from tests.xen.versions import VERSIONS, version_of

PVH = {"pvh": True, "version": version_of(4, 17)}

AT = 0xE000_0000
NIC = device("01:00.0", [(AT, 0x2_0000), (0, 0), (AT + 0x4_0000, 0x4000)], parent="00:1c.0", msix=(2, 0x2000))
PF = with_vfs(device("01:00.0", [(AT, 0x4000)], parent="00:1c.0"), 0xE800_0000, 0x4000)
VF = function("01:01.0", parent="00:1c.0", physfn="01:00.0", vendor=0xFFFF, device=0xFFFF)


def desired(raw, xen, *others, pvh=True, version=PVH["version"]):
    there = decode_machine([port(), raw, *others])
    return desired_of(there.functions[raw.sbdf], there.functions, xen, pvh=pvh, version=version)


def spans(found):
    return [(wanted.bar, [str(span) for span in wanted.spans]) for wanted in found.bars]


KNOWN = known("00:1c.0", "01:00.0", "01:01.0")
FORGOTTEN = known("00:1c.0")
WHOLE = [(0, ["0xe0000000-0xe001ffff"]), (2, ["0xe0040000-0xe0043fff"])]
CUT = [(0, ["0xe0000000-0xe001ffff"]), (2, ["0xe0040000-0xe0041fff", "0xe0043000-0xe0043fff"])]

#   function, Xen's view, others, expected spans by BAR, who maps
CASES = [
    (NIC, KNOWN, (), CUT, By.XEN),  # vPCI traps the MSI-X page
    (NIC, FORGOTTEN, (), WHOLE, By.US),  # nobody traps it: dom0 needs it
    (NIC, known("01:00.0", orphans=frozenset({S("01:00.0")})), (), WHOLE, By.US),
    (attrs.evolve(NIC, sbdf=S("10000:01:00.0"), parent=None, root_bus=1), KNOWN, (), [], By.US),  # VMD
    (device("01:00.0", [(AT, 0x1000)], command=0), KNOWN, (), [], By.XEN),  # decodes nothing
    (device("01:00.0", [(AT, 0x1000)], command=1), KNOWN, (), [], By.XEN),  # I/O decode alone
    (device("01:00.0", [(0, 0x1000)]), KNOWN, (), [], By.XEN),  # nobody has assigned an address
    (device("01:00.0", [(AT, 0)]), KNOWN, (), [], By.XEN),  # size unknown
    (device("01:00.0", [(AT | 1, 0x20)], command=3), KNOWN, (), [], By.XEN),  # ports
    (device("01:00.0", [(AT + 0x100, 0x100)]), KNOWN, (), [(0, ["0xe0000000-0xe0000fff"])], By.XEN),
    (device("01:00.0", [(0xC_8002, 0x1000)]), FORGOTTEN, (), [(0, ["0xc8000-0xc8fff"])], By.US),
    (device("01:00.0", rom=(AT, 0x1000, 1)), KNOWN, (), [(6, ["0xe0000000-0xe0000fff"])], By.XEN),
    (device("01:00.0", rom=(AT, 0x1000, 0)), KNOWN, (), [], By.XEN),  # ROM not enabled
    (device("01:00.0", [(AT, 0x1000)], header=2), KNOWN, (), [(0, ["0xe0000000-0xe0000fff"])], By.US),
    (VF, KNOWN, (PF,), [(0, ["0xe8000000-0xe8003fff"])], By.US),  # vPCI leaves VF BARs alone
    (VF, KNOWN, (with_vfs(PF, 0xE800_0000, 0x4000, memory=False),), [], By.US),
]  # fmt: skip


BEHIND = device("01:00.0", [(AT, 0x2000)], parent="00:1c.0", msix=(0, 0x2000))  # the table is behind its BAR
NO_BAR = device("01:00.0", [(AT, 0x2000)], parent="00:1c.0", msix=(3, 0))
IN_IO = device("01:00.0", [(AT, 0x2000), (0xC001, 0x20)], parent="00:1c.0", msix=(1, 0), command=3)
NO_SIZE = attrs.evolve(NIC, resources=())
REFUSING, TAKING = (
    [(4, 19, 4), (4, 19), (4, 20, 2), (4, 20)],
    [(4, 17), (4, 19, 3), (4, 20, 1), (4, 21, 0), (4, 22)],
)


@pytest.mark.parametrize("raw", [BEHIND, NO_BAR, IN_IO])
def test_where_xen_has_no_vpci_for_a_faulty_table_pcipt_maps(raw):
    for version in REFUSING:
        found = desired(raw, KNOWN, version=version_of(*version))
        assert (found.by, spans(found)) == (By.US, [(0, ["0xe0000000-0xe0001fff"])])
        assert "MSI-X" in found.untrapped
    for version in TAKING:
        assert desired(raw, KNOWN, version=version_of(*version)).by is By.XEN


@pytest.mark.parametrize("raw", [NIC, NO_SIZE])
def test_a_table_in_its_bar_or_of_a_bar_of_unknown_size_is_taken(raw):
    assert {desired(raw, KNOWN, version=version_of(*version)).by for version in REFUSING} == {By.XEN}


@pytest.mark.parametrize(("raw", "xen", "others", "expected", "by"), CASES)
def test_claims(raw, xen, others, expected, by):
    found = desired(raw, xen, *others)
    assert spans(found) == expected
    assert found.by is by
    assert {wanted.by for wanted in found.bars} <= {by}
    assert found.hold_reason is None


def test_on_pv_all_is_shown_as_ours_and_nothing_is_cut_out():
    found = desired(NIC, KNOWN, pvh=False)
    assert spans(found) == WHOLE
    assert found.by is By.US


def test_vpci_does_not_map_a_bar_over_what_is_protected():
    there = decode_machine([port(), NIC])
    over = protected_ranges([entry(AT + 0x1_0000, 0x1000, MemoryType.RESERVED)])
    nic = there.functions[NIC.sbdf]
    assert spans(desired_of(nic, there.functions, KNOWN, **PVH, protected=over)) == CUT[1:]
    assert spans(desired_of(nic, there.functions, FORGOTTEN, **PVH, protected=over)) == WHOLE


def test_pages_are_left_out_while_xen_has_it_at_an_address_of_before():
    there = decode_machine([port(), NIC])
    nic = there.functions[NIC.sbdf]
    told = {NIC.sbdf: (S("05:00.0"), S("07:00.0"))}
    for listed, expected in (("07:00.0", CUT), ("08:00.0", WHOLE)):
        view = known("00:1c.0", listed)
        assert spans(desired_of(nic, there.functions, view, **PVH, followed=told)) == expected


ASTRAY = [
    ([(0, 0x1000), (AT, 0x1000)], {0}),  # no address yet
    ([(0x10_0000, 0x1000), (AT, 0x1000)], {0}),  # over RAM
    ([(AT + 0x1000, 0x1000), (AT, 0x1000)], set()),
]


@pytest.mark.parametrize(("bars", "expected"), ASTRAY)
def test_what_decodes_where_vpci_maps_none_is_told(bars, expected):
    raw = device("01:00.0", bars, parent="00:1c.0")
    there = decode_machine([port(), raw])
    over = protected_ranges([entry(0x10_0000, 0x1000, MemoryType.RAM)])
    for view, outside_window in ((KNOWN, expected), (FORGOTTEN, set())):
        found = desired_of(
            there.functions[raw.sbdf],
            there.functions,
            view,
            pvh=True,
            version=version_of(4, 17),
            protected=over,
        )
        assert found.outside_window == outside_window


def test_what_came_from_there_while_it_decoded_may_not_be_mapped():
    there = decode_machine([port(), NIC])
    found = desired_of(
        there.functions[NIC.sbdf],
        there.functions,
        KNOWN,
        pvh=True,
        version=version_of(4, 17),
        outside_window={2},
    )
    assert [(wanted.bar, wanted.by, wanted.unsure) for wanted in found.bars] == [
        (0, By.XEN, False), (2, By.US, True),
    ]  # fmt: skip
    assert found.outside_window == {2}  # until decoding was seen to be off
    off = decode_machine([port(), device("01:00.0", [(AT, 0x1000)], parent="00:1c.0", command=0)])
    found = desired_of(off.functions[NIC.sbdf], off.functions, KNOWN, **PVH, outside_window={0})
    assert found.outside_window == frozenset()


def test_a_bridges_own_bar_is_claimed():
    own = bridge("00:1d.0", 2, 2, command=2, bars=(AT,), resources=[(AT, 0x1000, 0x200)])
    assert spans(desired(own, known("00:1d.0"))) == [(0, ["0xe0000000-0xe0000fff"])]


def test_the_msix_page_of_a_virtual_function_is_left_out_where_xen_knows_it():
    vf = attrs.evolve(
        device("01:01.0", msix=(0, 0x1000), parent="00:1c.0", physfn="01:00.0"), resources=(), driver="nvme"
    )
    cut = [(0, ["0xe8000000-0xe8000fff", "0xe8002000-0xe8003fff"])]
    assert spans(desired(vf, KNOWN, PF)) == cut
    assert spans(desired(vf, FORGOTTEN, PF)) == [(0, ["0xe8000000-0xe8003fff"])]


#   function, Xen's view, others, words of the doubt
KEPT = [
    (without_answer(NIC), KNOWN, (), "does not answer"),  # leaving, or renumbered
    (attrs.evolve(NIC, config=None), KNOWN, (), "cannot be read"),
    (attrs.evolve(NIC, config=NIC.config[:4]), KNOWN, (), "command register"),
    (NIC, known("01:00.0", elsewhere={S("01:00.0"): "domain 3"}), (), "domain 3"),
    (NIC, known("01:00.0", quarantined=frozenset({S("01:00.0")})), (), "quarantined"),
    (attrs.evolve(NIC, driver="pciback"), KNOWN, (), "xen-pciback"),
    (VF, KNOWN, (), "physical function"),  # the physical function is not there
    (VF, KNOWN, (without_answer(PF),), "physical function"),
]


@pytest.mark.parametrize(("raw", "xen", "others", "words"), KEPT)
def test_on_a_doubt_what_is_held_is_kept(raw, xen, others, words):
    found = desired(raw, xen, *others)
    assert found.hold_reason is not None
    assert words in found.hold_reason
    assert found.bars == ()


def test_a_place_survives_renumbering_and_falls_back_to_the_address():
    there = decode_machine([port(), NIC])
    assert place_of(there.functions[S("01:00.0")]) == "00_1c.0-00_00.0"
    lost = attrs.evolve(there.functions[S("01:00.0")], path=None)
    assert place_of(lost) == "0000:01:00.0"


def test_what_linux_dropped_needs_nothing():
    left = gone("00_1c.0-00_00.0", S("01:00.0"))
    assert (left.bars, left.hold_reason, left.gone) == ((), None, True)


CUTS = {version for version in VERSIONS if (4, 19, 3) <= version < (4, 20) or version >= (4, 20, 1)}
HALF = entry(AT + 0x1_0000, 0x4000, MemoryType.RESERVED)
REST = ["0xe0000000-0xe000ffff", "0xe0014000-0xe001ffff"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("memory", "rest"),
    [
        ([HALF], REST),
        ([entry(AT, 0x2_0000, MemoryType.RAM)], []),  # nothing is outside: it counts as mapped anyway
        ([entry(AT, 0x1_0000, MemoryType.RAM)], ["0xe0010000-0xe001ffff"]),
    ],
)
def test_of_a_bar_over_the_memory_map_some_releases_map_the_rest(version, memory, rest):
    there = decode_machine([port(), NIC])
    found = desired_of(
        there.functions[NIC.sbdf], there.functions, KNOWN, pvh=True, version=version_of(*version),
        protected=protected_ranges(memory),
    )  # fmt: skip
    bars = dict(spans(found))
    assert bars[2] == dict(CUT)[2]
    if version in CUTS:
        assert (bars.get(0, []), found.outside_window) == (rest, frozenset())
        assert all(wanted.by is By.XEN for wanted in found.bars)
    else:
        assert (0 in bars, found.outside_window) == (False, {0})


@pytest.mark.parametrize("version", VERSIONS)
def test_a_bar_at_address_0_counts_as_mapped_in_those_releases(version):
    raw = device("01:00.0", [(0, 0x1000)], parent="00:1c.0")
    there = decode_machine([port(), raw])
    found = desired_of(
        there.functions[raw.sbdf], there.functions, KNOWN, pvh=True, version=version_of(*version),
        protected=protected_ranges([]),
    )  # fmt: skip
    assert (found.bars, found.outside_window) == ((), frozenset() if version in CUTS else {0})


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_protected_for_another_reason_is_never_cut(version):
    apic = device("01:00.0", [(0xFEE0_0000, 0x20_0000)], parent="00:1c.0")
    there = decode_machine([port(), apic])
    found = desired_of(
        there.functions[apic.sbdf], there.functions, KNOWN, pvh=True, version=version_of(*version),
        protected=protected_ranges([]),
    )  # fmt: skip
    assert (found.bars, found.outside_window) == ((), {0})
