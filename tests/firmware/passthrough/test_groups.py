import attrs
import pytest

from pcipt.firmware.passthrough.groups import companions, groups_of, sets_of
from pcipt.firmware.passthrough.groups_edges import KERNEL_RULES, Why
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.firmware.regions.regions import Region, RegionDevice, RegionKind, Regions
from pcipt.pci import Ids, parse_sbdf
from pcipt.pci.raw import LinuxFacts
from tests.firmware.passthrough.groups_cases import (
    ALL,
    endpoint,
    pcie,
    root_port,
    sets,
    short,
    switch,
    why,
)
from tests.firmware.passthrough_cases import TO_PCI, conventional, evidence_of, host
from tests.machines import bridge, function
from tests.vmd import controller, disk, port

FROM_PCI = 0x8
PORT_BITS = [
    # what the port has, what is on -> whether it separates
    (ALL, ALL, True),
    (0x7F, 0x1D, True),  # translation blocking, egress control and direct translation do not count
    (ALL, ALL & ~0x01, False),  # each of the four alone
    (ALL, ALL & ~0x04, False),
    (ALL, ALL & ~0x08, False),
    (ALL, ALL & ~0x10, False),
    (ALL & ~0x10, ALL & ~0x10, True),  # what a port does not have need not be on
    (0, 0, True),
    (ALL, 0, False),
]


@pytest.mark.parametrize(("capable", "enabled", "separates"), PORT_BITS)
def test_each_bit_of_a_root_port(capable, enabled, separates):
    evidence = evidence_of(
        root_port("00:1c.0", 3, acs=capable, enabled=enabled), endpoint("03:00.0", "00:1c.0")
    )
    assert sets(evidence) == ([] if separates else ["00:1c.0 03:00.0"])


@pytest.mark.parametrize("bit", [0x01, 0x04, 0x08, 0x10])
def test_the_reason_names_the_control_that_is_off(bit):
    evidence = evidence_of(
        root_port("00:1c.0", 3, enabled=ALL & ~bit),
        endpoint("03:00.0", "00:1c.0"),
        endpoint("03:01.0", "00:1c.0"),
    )
    words = {0x01: "source validation", 0x04: "request redirect", 0x08: "completion redirect",
             0x10: "upstream forwarding"}  # fmt: skip
    (edge, *_) = groups_of(evidence).edges
    assert f"0000:00:1c.0 (its ACS has these controls off: {words[bit]}; a Xen" in edge.text


def test_acs_counts_on_every_port_up_to_the_root():
    """The switch has ACS; what is above it has not."""
    bare = root_port("00:1c.0", 2, last=5, acs=None)
    evidence = evidence_of(bare, *switch()[1:])
    assert sets(evidence) == ["00:1c.0 02:00.0 03:00.0 03:01.0 04:00.0 05:00.0"]
    assert sets(evidence_of(*switch())) == []


def test_a_port_of_a_switch_without_acs_reaches_the_others():
    evidence = evidence_of(*switch(acs=(None, ALL)))
    assert sets(evidence) == ["03:00.0 03:01.0 04:00.0 05:00.0"]  # 04:00.0 reaches the BARs of 05:00.0
    assert why(evidence, "04:00.0", "03:01.0") == ["port-without-acs", "switch-without-acs"]
    assert why(evidence, "04:00.0", "05:00.0") == [
        "port-without-acs", "switch-without-acs", "switch-without-acs",
    ]  # fmt: skip
    assert sets(evidence, *KERNEL_RULES) == ["03:00.0 04:00.0"]  # Linux has no such rule
    both = evidence_of(*switch(acs=(None, None)))
    assert sets(both) == ["03:00.0 03:01.0 04:00.0 05:00.0"]


MULTI = [
    # ACS controls of each function -> whether they go together
    ((None, None), True),
    ((ALL, ALL), False),
    ((0, 0), False),  # has ACS, and nothing that could be redirected
    ((None, ALL), False),  # one of them keeps to itself
]


@pytest.mark.parametrize("place", ["endpoint", "root complex"])
@pytest.mark.parametrize(("acs", "together"), MULTI)
def test_functions_of_one_device(acs, together, place):
    kind, parent, at = (0x9, None, "00:05") if place == "root complex" else (0x0, "00:1c.0", "03:00")
    evidence = evidence_of(
        root_port("00:1c.0", 3),
        *(endpoint(f"{at}.{number}", parent, kind=kind, acs=each, vendor=0x1022)
          for number, each in enumerate(acs)),
    )  # fmt: skip
    assert sets(evidence) == ([f"{at}.0 {at}.1"] if together else [])


def test_an_event_collector_has_no_acs():
    pair = [endpoint(f"00:05.{number}", kind=0xA, vendor=0x1022) for number in range(2)]
    assert sets(evidence_of(*pair)) == ["00:05.0 00:05.1"]


def test_intels_root_complex_endpoints_need_no_acs():
    pair = [endpoint(f"00:05.{number}", kind=0x9) for number in range(2)]
    assert sets(evidence_of(*pair)) == []


def test_conventional_functions_of_one_device_on_a_root_bus():
    evidence = evidence_of(conventional(function("00:1f.2")), conventional(function("00:1f.3")))
    assert sets(evidence) == ["00:1f.2 00:1f.3"]


def test_root_ports_of_one_device():
    evidence = evidence_of(
        root_port("00:1c.0", 3, acs=None),
        root_port("00:1c.4", 4, acs=None),
        endpoint("03:00.0", "00:1c.0"),
        endpoint("04:00.0", "00:1c.4"),
    )
    assert sets(evidence) == ["00:1c.0 00:1c.4 03:00.0 04:00.0"]
    assert why(evidence, "03:00.0", "04:00.0") == [
        "port-without-acs", "functions-without-acs", "port-without-acs",
    ]  # fmt: skip


def test_virtual_functions_stand_alone():
    evidence = evidence_of(
        root_port("00:1c.0", 3),
        endpoint("03:00.0", "00:1c.0"),
        endpoint("03:00.1", "00:1c.0", physfn="03:00.0"),
        endpoint("03:00.2", "00:1c.0", physfn="03:00.0"),
    )
    assert sets(evidence) == []


def test_virtual_functions_stand_alone_even_if_their_registers_were_not_read():
    """A recording that was not made by root has 64 bytes of each, and the links to physical functions."""
    raws = [endpoint("03:00.0", None), *(endpoint(f"03:00.{n}", physfn="03:00.0") for n in (1, 2))]
    evidence = evidence_of(*(attrs.evolve(raw, config=raw.config[:64]) for raw in raws))
    assert {each.unknown for each in sets_of(evidence, groups_of(evidence))} == {()}


QUIRKS = [
    # functions -> sets
    ([root_port("00:1c.0", 3, acs=None, device_id=0x1C10), endpoint("03:00.0", "00:1c.0")], []),
    ([root_port("00:1c.0", 3, acs=None, device_id=0x1C09), endpoint("03:00.0", "00:1c.0")],
     ["00:1c.0 03:00.0"]),
    # its control register lies two bytes after its place
    ([root_port("00:1d.0", 3, enabled=0, wide=ALL, device_id=0xA110), endpoint("03:00.0", "00:1d.0")], []),
    ([root_port("00:1d.0", 3, enabled=ALL, wide=0, device_id=0xA110), endpoint("03:00.0", "00:1d.0")],
     ["00:1d.0 03:00.0"]),
    ([root_port("00:1c.0", 3), *(endpoint(f"03:00.{n}", "00:1c.0", device=0x1521) for n in range(2))], []),
    ([root_port("00:1c.0", 3), *(endpoint(f"03:00.{n}", "00:1c.0", device=0x1520) for n in range(2))],
     ["03:00.0 03:00.1"]),
    # AMD's southbridge, on a root bus of an AMD machine
    ([function("00:00.0", vendor=0x1022, class_code=0x060000),
      conventional(function("00:14.0", vendor=0x1002, device=0x4385)),
      conventional(function("00:14.2", vendor=0x1002, device=0x4383))], []),
    ([conventional(function("00:14.0", vendor=0x1002, device=0x4385)),
      conventional(function("00:14.2", vendor=0x1002, device=0x4383))], ["00:14.0 00:14.2"]),
]  # fmt: skip


@pytest.mark.parametrize(("raws", "expected"), QUIRKS)
def test_devices_that_linux_judges_by_a_list(raws, expected):
    assert sets(evidence_of(*raws)) == expected


OLD_PCH = (root_port("00:1c.0", 3, acs=None, device_id=0x1E10), endpoint("03:00.0", "00:1c.0"))
NEW_PCH = (
    root_port("00:1c.0", 3, enabled=ALL, wide=0, device_id=0xA110), endpoint("03:00.0", "00:1c.0"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("raws", "dom0", "words"),
    [
        (OLD_PCH, None, ""),
        (OLD_PCH, Guest.PV, ""),
        (OLD_PCH, Guest.PVH, "it has no ACS; Linux sets such a port up in a PV dom0 only"),
        (NEW_PCH, Guest.PVH, "Linux in a PV dom0 switches them on"),
    ],
)
def test_ports_of_intel_chipsets_are_set_up_by_linux_of_a_pv_dom0(raws, dom0, words):
    known = {} if dom0 is None else {"host": host(dom0=dom0)}
    edges = groups_of(evidence_of(*raws, **known)).edges
    assert [words in edge.text for edge in edges] == ([True] if words else [])


@pytest.mark.parametrize("kind", ["forward", "plain", "reverse"])
def test_requester_ids_behind_a_bridge(kind):
    upper = bridge("00:1e.0", 3, 4)
    inner = pcie(bridge("03:02.0", 4, 4, parent="00:1e.0"), 0x4, acs=ALL)
    upper = {"forward": pcie(upper, TO_PCI), "plain": conventional(upper), "reverse": pcie(upper, FROM_PCI)}[
        kind
    ]
    evidence = evidence_of(
        upper,
        conventional(function("03:00.0", parent="00:1e.0")),
        inner,
        endpoint("04:00.0", "03:02.0"),
    )
    assert sets(evidence, *KERNEL_RULES) == ["00:1e.0 03:00.0 03:02.0 04:00.0"]
    edges = groups_of(evidence).edges
    text = next(edge.text for edge in edges if edge.one == parse_sbdf("04:00.0"))
    assert ("from conventional PCI" if kind == "reverse" else "to conventional PCI") in text


def test_a_function_with_the_requester_id_of_another():
    """A Marvell SATA controller of which function 1 (IDE) exists."""
    evidence = evidence_of(
        root_port("00:1c.0", 3),
        endpoint("03:00.0", "00:1c.0", vendor=0x1B4B, device=0x9123, acs=ALL),
        endpoint("03:00.1", "00:1c.0", vendor=0x1B4B, device=0x91A4, acs=ALL),
    )
    assert why(evidence, "03:00.0", "03:00.1") == ["dma-alias"]


@pytest.mark.parametrize("card", [0x02BB, 0x02BA])
def test_a_card_that_uses_the_requester_id_of_another_device_number(card):
    """An Adaptec 3405, by its subsystem, with something at device 1 of its bus."""
    ids = Ids(0x9005, 0x0285, 0x010400, 0, 0x9005, card)
    raw = attrs.evolve(endpoint("03:0e.0", "00:1c.0", vendor=0x9005, device=0x0285), ids=ids)
    evidence = evidence_of(root_port("00:1c.0", 3), raw, endpoint("03:01.0", "00:1c.0"))
    assert why(evidence, "03:0e.0", "03:01.0") == (["dma-alias"] if card == 0x02BB else [])


def test_a_bridge_between_two_hosts_uses_all_requester_ids_of_its_bus():
    """A non-transparent bridge of a PLX PEX 87xx beside another port's management function."""
    pair = (
        endpoint("03:00.0", "00:1c.0", vendor=0x10B5, device=0x87B0),
        endpoint("03:00.1", "00:1c.0", acs=ALL),
    )
    evidence = evidence_of(root_port("00:1c.0", 3), *pair)
    assert why(evidence, "03:00.0", "03:00.1") == ["dma-alias"]
    assert sets(evidence, *KERNEL_RULES) == ["03:00.0 03:00.1"]


@pytest.mark.parametrize(
    ("bits", "number", "together"), [(1, 4, True), (1, 3, False), (2, 2, True), (2, 1, False), (3, 1, True)]
)
def test_phantom_functions_over_a_real_one(bits, number, together):
    evidence = evidence_of(
        root_port("00:1c.0", 3),
        endpoint("03:00.0", "00:1c.0", acs=ALL, phantom=bits),
        endpoint(f"03:00.{number}", "00:1c.0", acs=ALL),
    )
    assert why(evidence, "03:00.0", f"03:00.{number}") == (["phantom-function"] if together else [])


@pytest.mark.parametrize("below", ["00:0e.0", None])  # by Linux's directories, and by the BARs
def test_a_vmd_controller_and_its_segment(below):
    evidence = evidence_of(controller(), port(below=below), disk(), endpoint("00:14.0"))
    assert sets(evidence, Why.VMD) == ["00:0e.0 10000:e0:06.0 10000:e1:00.0"]


def test_a_vmd_controller_that_no_bar_tells():
    """The only function bound to vmd has it, unless there are two."""
    silent = attrs.evolve(function("00:0e.0", class_code=0x010400, driver="vmd"))
    raws = (silent, port(below="00:1f.7"), disk())
    assert sets(evidence_of(*raws), Why.VMD) == ["00:0e.0 10000:e0:06.0 10000:e1:00.0"]
    second = function("00:0f.0", class_code=0x010400, driver="vmd")
    assert sets(evidence_of(*raws, second), Why.VMD) == []
    stranger = function("00:02.0", bars=(0xD000_0000,), resources=[(0xD000_0000, 1 << 25, 0x40200)])
    assert sets(evidence_of(*raws, second, stranger), Why.VMD) == []  # a BAR around it, and no controller


def region(base, *devices):
    return Region(
        RegionKind.RMRR, 0, base, base + 0xFFF, (),
        tuple(RegionDevice(parse_sbdf(each), present=True) for each in devices),
    )  # fmt: skip


def test_shared_reserved_regions():
    regions = Regions((region(0x7000_0000, "00:14.0", "00:1a.0", "00:09.0"), region(0x7100_0000, "00:1d.0")))
    evidence = evidence_of(
        *(conventional(function(each)) for each in ("00:14.0", "00:1a.0", "00:1d.0")), regions=regions
    )
    assert sets(evidence) == ["00:14.0 00:1a.0"]  # 00:09.0 is not there
    assert why(evidence, "00:1a.0", "00:14.0") == ["reserved-region"]
    assert "RMRR region 0x70000000-0x70000fff" in groups_of(evidence).edges[0].text


def test_shared_pages():
    def small(number):
        at = 0xF000_0000 + 0x100 * number
        lines = [(at, 0x100, 0x40200)]
        return conventional(function(f"00:0{number}.0", command=2, bars=(at,), resources=lines))

    assert sets(evidence_of(small(3), small(4)), Why.PAGE) == ["00:03.0 00:04.0"]


RESETS = [
    # reset methods by Linux (None: unknown), FLR in the registers -> whether the two go together
    (("flr",), False, False),
    (("pm",), False, False),
    (("bus",), True, True),  # Linux's word counts: it does not use the FLR
    ((), True, True),
    (None, True, False),
    (None, False, True),
]


@pytest.mark.parametrize(("methods", "flr", "together"), RESETS)
def test_a_reset_that_hits_all_below_a_port(methods, flr, together):
    facts = {parse_sbdf("03:00.0"): LinuxFacts(reset_methods=methods)}
    facts[parse_sbdf("03:01.0")] = LinuxFacts(reset_methods=("flr",))
    evidence = evidence_of(
        root_port("00:1c.0", 3),
        endpoint("03:00.0", "00:1c.0", flr=flr),
        endpoint("03:01.0", "00:1c.0"),
        facts=facts,
    )
    assert sets(evidence) == (["03:00.0 03:01.0"] if together else [])
    assert why(evidence, "03:01.0", "03:00.0") == (["reset"] if together else [])


def test_flr_that_hangs_the_device_is_no_reset():
    pair = (endpoint(f"03:0{n}.0", "00:1c.0", vendor=0x1022, device=0x149C) for n in range(2))
    assert sets(evidence_of(root_port("00:1c.0", 3), *pair)) == ["03:00.0 03:01.0"]


def test_on_a_root_bus_no_reset_is_shared():
    pair = [endpoint(f"00:0{n}.0", flr=False) for n in (2, 3)]
    assert sets(evidence_of(*pair)) == []


def test_every_function_is_in_one_set():
    evidence = evidence_of(*switch(acs=(None, None)), endpoint("00:14.0"), conventional(function("00:1f.0")))
    found = sets_of(evidence, groups_of(evidence))
    members = [sbdf for each in found for sbdf in each.members]
    assert sorted(members) == sorted(evidence.machine.functions)
    assert len(members) == len(set(members))


def test_linux_groups_add_and_separate():
    """Linux knows of a device that separates without ACS, and of two functions that do not."""
    raws = (root_port("00:1c.0", 3, acs=None), endpoint("03:00.0", "00:1c.0"), endpoint("00:05.0"),
            endpoint("00:06.0"))  # fmt: skip
    groups = {"00:1c.0": 1, "03:00.0": 2, "00:05.0": 3, "00:06.0": 3}
    facts = {parse_sbdf(each): LinuxFacts(iommu_group=group) for each, group in groups.items()}
    assert sets(evidence_of(*raws, facts=facts)) == ["00:05.0 00:06.0"]
    assert why(evidence_of(*raws, facts=facts), "00:05.0", "00:06.0") == ["iommu-group"]
    assert sets(evidence_of(*raws)) == ["00:1c.0 03:00.0"]


def test_what_was_not_read_is_unknown_only_where_it_matters():
    short_ones = [cut(raw) for raw in switch()]
    evidence = evidence_of(*short_ones)
    unknown = {short(each.members[0]): each.unknown for each in sets_of(evidence, groups_of(evidence))}
    assert unknown["04:00.0"] == ("ACS",)
    alone = evidence_of(cut(root_port("00:1c.0", 3)), cut(endpoint("03:00.0", "00:1c.0")))
    assert all(each.unknown == () for each in sets_of(alone, groups_of(alone)))


def cut(raw):
    """Keep the first 256 bytes, as lspci -xxx does."""
    return attrs.evolve(raw, config=raw.config[:256])


def test_companions_leave_out_bridges_and_what_leaves_too():
    evidence = evidence_of(*switch(acs=(None, None)))
    groups = groups_of(evidence)
    at = parse_sbdf("04:00.0")
    assert [short(each.sbdf) for each in companions(at, evidence, groups)] == ["05:00.0"]
    leaving = evidence.leaving([at, parse_sbdf("05:00.0")])
    assert companions(at, leaving, groups) == ()
