"""Lines for other tools."""

import pytest

from pcipt.pci import PciPath, Sbdf
from pcipt.pci.policy.entries import Entry
from pcipt.pci.policy.resolve import resolve
from pcipt.pci.policy.snippets import For, lines_for
from tests.pci.policy.identities import identity

PATHS = [PciPath(0, ((0, 0x1C, number), (0, 0, 0))) for number in range(4)]
MACHINE = {Sbdf(0, bus, 0, 0): identity(PATHS[at], serial=None) for at, bus in enumerate((5, 3, 4))}
GUESTS = ("web", "web", "", "gone")
ENTRIES = [Entry(identity(PATHS[at], serial=None), guest) for at, guest in enumerate(GUESTS)]
HIDE = "xen-pciback.hide=(0000:03:00.0)(0000:04:00.0)(0000:05:00.0)"
XE = "xe vm-param-set uuid=$(xe vm-list name-label={} --minimal) other-config:pci={}"


@pytest.mark.parametrize(
    ("tool", "lines"),
    [
        (
            For.XL,
            [
                "# web.cfg",
                'pci = [ "0000:05:00.0", "0000:03:00.0" ]',
                "# GUEST.cfg",
                'pci = [ "0000:04:00.0" ]',
            ],
        ),
        (For.KERNEL, [HIDE]),
        (
            For.QUBES,
            [
                "rd.qubes.hide_pci=03:00.0,04:00.0,05:00.0",
                "qvm-pci assign --required web dom0:00_1c.0-00_00.0",
                "qvm-pci assign --required web dom0:00_1c.1-00_00.0",
                "qvm-pci assign --required GUEST dom0:00_1c.2-00_00.0",
            ],
        ),
        (
            For.XAPI,
            [
                f'/opt/xensource/libexec/xen-cmdline --set-dom0 "{HIDE}"',
                XE.format("web", "0/0000:05:00.0,0/0000:03:00.0"),
                XE.format("GUEST", "0/0000:04:00.0"),
            ],
        ),
    ],
)
def test_lines_name_what_is_present(tool, lines):
    assert lines_for(tool, resolve(ENTRIES, MACHINE)) == lines


def test_the_hook_of_qubes_knows_segment_0_only():
    """It puts 0000: before each address: with another segment the boot stops."""
    machine = dict(MACHINE)
    machine[Sbdf(1, 3, 0, 0)] = identity(PciPath(1, ((0, 1, 0), (0, 0, 0))), serial=None)
    far = Entry(machine[Sbdf(1, 3, 0, 0)], "web")
    assert lines_for(For.QUBES, resolve([ENTRIES[0], far], machine)) == [
        "rd.qubes.hide_pci=05:00.0",
        "# rd.qubes.hide_pci cannot name 0001:03:00.0: it is in another segment than 0",
        "qvm-pci assign --required web dom0:00_1c.0-00_00.0",
        "qvm-pci assign --required web dom0:0001_00_01.0-00_00.0",
    ]
    assert lines_for(For.QUBES, resolve([far], machine))[0].startswith("# ")


@pytest.mark.parametrize("tool", For)
def test_nothing_present_gives_no_line(tool):
    assert lines_for(tool, resolve(ENTRIES, {})) == []
