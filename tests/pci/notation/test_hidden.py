"""Which functions the kernel's command line hides."""

import pytest

from pcipt.pci import Sbdf, SlotFilter
from pcipt.pci.notation.hidden import PCIBACK, QUBES, Named, hidden_by, hidden_by_module

F = SlotFilter(0, 3, 0, 0)
LINES = [
    # the command line; option: (text, what is named) of each item
    ("quiet console=hvc0", {}),
    ("xen-pciback.hide=", {}),
    ("xen-pciback.hide=(0000:03:00.0)", {PCIBACK: [("(0000:03:00.0)", F)]}),
    ("xen_pciback.hide=(03:00.0)", {PCIBACK: [("(03:00.0)", F)]}),
    (
        "xen-pciback.hide=(3:0.0)(0001:04:1f.7) ro",
        {PCIBACK: [("(3:0.0)", F), ("(0001:04:1f.7)", SlotFilter(1, 4, 0x1F, 7))]},
    ),
    ('"xen-pciback.hide=(03:00.0) (04:00.0)"', {
        PCIBACK: [("(03:00.0)", F), ("(04:00.0)", SlotFilter(0, 4, 0, 0))]
    }),
    ("xen-pciback.hide=(03:00.*)", {PCIBACK: [("(03:00.*)", SlotFilter(0, 3, 0, None))]}),
    ("xen-pciback.hide=(0001:03:*.*)", {PCIBACK: [("(0001:03:*.*)", SlotFilter(1, 3, None, None))]}),
    ("xen-pciback.hide=(01:00.0) xen-pciback.hide=(03:00.0)", {PCIBACK: [("(03:00.0)", F)]}),  # the last
    # malformed: from there on nothing is read
    ("xen-pciback.hide ro", {PCIBACK: [("nothing", None)]}),
    ("rd.qubes.hide_pci ro", {}),
    ("xen-pciback.hide=03:00.0", {PCIBACK: [("03:00.0", None)]}),
    ("xen-pciback.hide=(03:00.0),(04:00.0)", {PCIBACK: [("(03:00.0)", F), (",(04:00.0)", None)]}),
    ("xen-pciback.hide=(03:00:0)", {PCIBACK: [("(03:00:0)", None)]}),
    ("xen-pciback.hide=(03:20.0)", {PCIBACK: [("(03:20.0)", None)]}),
    ("rd.qubes.hide_pci=03:00.0,04:00.0", {QUBES: [("03:00.0", F), ("04:00.0", SlotFilter(0, 4, 0, 0))]}),
    ("rd.qubes.hide_pci=0000:03:00.0", {QUBES: [("0000:03:00.0", None)]}),  # the hook puts 0000: before it
    ("rd.qubes.hide_pci=03:00.A", {QUBES: [("03:00.A", None)]}),
]  # fmt: skip


@pytest.mark.parametrize(("line", "items"), LINES)
def test_a_line(line, items):
    found = hidden_by(line)
    assert {option: [(each.text, each.slot) for each in named] for option, named in found.items()} == items


FILES = [
    # a file of modprobe.d; line and items
    ("options xen-pciback hide=(03:00.0)\n", (1, [("(03:00.0)", F)])),
    ("# a NIC\n\n options  xen_pciback passthrough=1 hide=(03:00.0)\n", (3, [("(03:00.0)", F)])),
    ('options xen-pciback hide="(03:00.0) (03:00.0)"', (1, [("(03:00.0)", F), ("(03:00.0)", F)])),
    ("options xen-pciback \\\n  hide=(03:00.0)\n", (1, [("(03:00.0)", F)])),
    ("options xen-pciback hide=(4:0.0)\noptions xen-pciback hide=(03:00.0)\n", (2, [("(03:00.0)", F)])),
    ("options xen-pciback hide=03:00.0\n", (1, [("03:00.0", None)])),
    ("options xen-pciback hide\n", (1, [("nothing", None)])),
    ("options xen-pciback hide=(03:00.0)\noptions xen-pciback hide=\n", None),  # the last one is empty
    ("#options xen-pciback hide=(03:00.0)\n", None),
    ("options vfio-pci ids=8086:10d3 hide=(03:00.0)\n", None),
    ("softdep e1000e pre: xen-pciback\noptions\n", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_a_file_of_modprobe(text, expected):
    found = hidden_by_module(text)
    assert (found and (found[0], [(each.text, each.slot) for each in found[1]])) == expected


def test_which_functions_an_item_names():
    machine = {Sbdf(0, 3, 0, 1), Sbdf(0, 3, 0, 0), Sbdf(1, 3, 0, 0), Sbdf(0, 4, 0, 0)}
    assert Named("(03:00.*)", SlotFilter(0, 3, 0, None)).functions(machine) == [
        Sbdf(0, 3, 0, 0),
        Sbdf(0, 3, 0, 1),
    ]
    assert Named("x", None).functions(machine) == []
