"""Segments that Xen cannot name: their controllers, their BARs, their orphans."""

import attrs
import pytest

from pcipt.pci import decode_machine, parse_sbdf
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.kinds.domains import aliased, controller_of, cut_orphans, domains
from pcipt.remap.view import XenView
from tests.vmd import controller, disk, port, vmd_machine
from tests.xen.versions import version_of

S = parse_sbdf
VMD, DISK, PORT = S("00:0e.0"), S("10000:e1:00.0"), S("10000:e0:06.0")


def indexed(*raws):
    machine = decode_machine(raws)
    return machine, BarIndex(machine.functions.values())


def without_windows(raw):
    closed = b"\xf0\xff\x00\x00"
    return attrs.evolve(raw, config=raw.config[:0x20] + closed + raw.config[0x24:])


@pytest.mark.parametrize(
    ("raws", "expected"),
    [
        (vmd_machine(), VMD),
        (vmd_machine(below=None), VMD),  # by its window
        ([controller(), without_windows(port(below=None)), disk()], VMD),  # by a BAR
        ([controller(), without_windows(port(below=None))], VMD),  # the only one with the driver
        ([controller(), controller("00:0f.0"), without_windows(port(below=None))], None),
        ([port(), disk()], None),  # Linux names one that is not there
        ([controller(driver=None), without_windows(port(below=None))], None),
    ],
)
def test_the_controller_of_a_segment(raws, expected):
    assert controller_of(0x10000, *indexed(*raws)) == expected


def test_each_segment_has_its_functions():
    found = domains(*indexed(*vmd_machine(), disk("10001:00:00.0", None)))
    assert [(each.segment, each.controller, each.functions) for each in found] == [
        (0x10000, VMD, (PORT, DISK)), (0x10001, VMD, (S("10001:00:00.0"),)),
    ]  # fmt: skip
    assert domains(*indexed(controller())) == []


def test_who_may_have_been_announced_by_a_cut_address():
    _, bars = indexed(*vmd_machine(), disk("20000:e1:00.0", None), disk("10001:e1:00.0", None))
    assert aliased(S("0000:e1:00.0"), bars) == [DISK, S("20000:e1:00.0")]
    assert aliased(S("0001:e1:00.0"), bars) == [S("10001:e1:00.0")]
    assert aliased(S("0000:e2:00.0"), bars) == aliased(DISK, bars) == []


def test_a_function_that_has_left_is_in_no_segment():
    machine, bars = indexed(*vmd_machine())
    bars.put(attrs.evolve(machine.functions[DISK], driver=None))
    bars.drop(DISK)
    assert bars.of_segment(0x10000) == [PORT]
    bars.drop(PORT)
    assert bars.beyond_xen == []


@pytest.mark.parametrize(
    ("numbers", "panics"),
    [((4, 17, 7), True), ((4, 18, 6), True), ((4, 19, 0), False), ((4, 20, 4), False), ((4, 22, 0), False)],
)
def test_the_text_says_what_the_release_does(numbers, panics):
    found = domains(*indexed(*vmd_machine()))
    (told,) = cut_orphans(found, XenView(known={DISK.cut}, orphans={DISK.cut}), version_of(*numbers))
    assert (told.subject, told.panics) == (VMD, panics)
    assert str(DISK.cut) in told.text
    assert str(VMD) in told.text
    assert ("Do not unbind" in told.text) is panics
    assert cut_orphans(found, XenView(known={DISK.cut}), version_of(*numbers)) == []


def test_without_a_controller_the_first_function_has_the_finding():
    found = domains(*indexed(port(below=None), disk()))
    told = cut_orphans(found, XenView(orphans={DISK.cut, PORT.cut}), version_of(4, 17, 7))[0]
    assert told.subject == PORT
    assert "1 more" in told.text
