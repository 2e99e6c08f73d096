"""Host bridges by their ACPI names."""

import pytest

from pcipt.host.policy.places import read_host_bridges, read_identities
from pcipt.host.recorder import record_machine
from pcipt.host.sysfs import read_machine
from pcipt.pci import Sbdf, decode_machine
from tests.trees import add, put

NAMES = {"pci0000:00": "\\_SB_.PCI0\n", "pci0000:40": "\\_SB_.PC01\n", "pci0001:00": "\\_SB_.PC02\n"}


@pytest.fixture
def tree(tmp_path):
    """Two segments, three host bridges; each is a link to its ACPI object, as Linux has it."""
    root = tmp_path / "machine"
    for number, (bridge, name) in enumerate(NAMES.items()):
        segment = bridge[3:7]
        bus = bridge[8:]
        add(root, f"{bridge}/{segment}:{bus}:01.0")
        acpi = root / f"sys/devices/LNXSYSTM:00/PNP0A08:{number:02x}"
        acpi.mkdir(parents=True)
        (acpi / "path").write_text(name)
        (root / "sys/devices" / bridge / "firmware_node").symlink_to(f"../LNXSYSTM:00/PNP0A08:{number:02x}")
    return root


def test_names_are_read(tree):
    assert read_host_bridges(str(tree)) == {
        (0, 0): "\\_SB_.PCI0", (0, 0x40): "\\_SB_.PC01", (1, 0): "\\_SB_.PC02",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "a\x1bb", "\\_SB_.PCI0 x", "\\" + "A" * 2000])
def test_what_is_no_name_is_left_out(tree, text):
    put(tree / "sys/devices/LNXSYSTM:00/PNP0A08:00/path", text)
    assert set(read_host_bridges(str(tree))) == {(0, 0x40), (1, 0)}


def test_a_name_of_two_is_that_of_none(tree):
    put(tree / "sys/devices/LNXSYSTM:00/PNP0A08:00/path", NAMES["pci0000:40"])
    assert set(read_host_bridges(str(tree))) == {(1, 0)}


def test_no_machine_has_no_names(tmp_path):
    assert read_host_bridges(str(tmp_path)) == read_host_bridges(str(tmp_path / "missing")) == {}


def test_a_recording_has_the_same_identities(tree, tmp_path):
    record_machine(str(tree), str(tmp_path / "copy"))
    live, copy = (
        read_identities(place, decode_machine(raws), raws)
        for place in (str(tree), str(tmp_path / "copy"))
        for raws in [read_machine(place)]
    )
    assert live == copy
    assert live[Sbdf(1, 0, 1, 0)].root == "\\_SB_.PC02"
