"""Switches on Xen's command line, as Xen's own parser reads them."""

import pytest

from pcipt.xen.command_line import switch_in

#  command line: the switch pf-fixup of dom0
LINES = {
    "": None,
    "dom0=pvh": None,
    "dom0=pvh,pf-fixup": True,
    "console=com1 dom0=pf-fixup,pvh com1=115200": True,
    "dom0=no-pf-fixup": False,
    "dom0=pf-fixup=0": False,
    "dom0=pf-fixup=no": False,
    "dom0=pf-fixup=off": False,
    "dom0=pf-fixup=false": False,
    "dom0=pf-fixup=disable": False,
    "dom0=pf-fixup=1,pvh": True,
    "dom0=pf-fixup=yes": True,
    "dom0=pf-fixup=on": True,
    "dom0=pf-fixup=true": True,
    "dom0=pf-fixup=enable": True,
    # the last one counts
    "dom0=pf-fixup,no-pf-fixup": False,
    "dom0=no-pf-fixup dom0=pvh,pf-fixup": True,
    # what Xen cannot read, it leaves out
    "dom0=pf-fixup=maybe": None,
    "dom0=pf-fixup dom0=no-pf-fixup=1": True,
    "dom0=pf-fixups": None,
    "dom0=PF-FIXUP": None,
    "dom0": None,
    # other options, and dom0's own command line
    "dom0-iommu=pf-fixup": None,
    "pf-fixup": None,
    "xdom0=pf-fixup": None,
    "dom0=pvh -- dom0=pf-fixup": None,
}


@pytest.mark.parametrize("line", LINES)
def test_a_switch_is_read_as_xen_reads_it(line):
    assert switch_in(line, "dom0", "pf-fixup") is LINES[line]


def test_any_switch_of_any_option():
    line = "iommu=no-intremap dom0-iommu=passthrough,no-map-reserved"
    assert switch_in(line, "dom0-iommu", "map-reserved") is False
    assert switch_in(line, "iommu", "intremap") is False
    assert switch_in(line, "iommu", "map-reserved") is None
