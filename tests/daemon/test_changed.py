"""What the service says at its start of hardware that is not that of the boot before."""

import os
from pathlib import Path

import pytest

from pcipt.daemon.changed import hardware_changed
from pcipt.engine.views.policy.kept import Kept
from pcipt.host.policy.boots import record_boot
from pcipt.host.policy.places import read_host_bridges
from pcipt.host.sysfs import read_machine
from pcipt.pci import PciPath, decode_machine
from pcipt.pci.identity import Identity
from pcipt.pci.policy.entries import Entry
from tests.cli.commands.policy.test_policy import card, machine

OLD, NEW = "aaaaaaaa-1", "bbbbbbbb-2"
ENTRY = Entry(Identity(PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))))


@pytest.fixture
def told(tmp_path):
    """Record a machine, change it, and give what is said at the next start."""
    place, boots = tmp_path / "machine", str(tmp_path / "boots")
    record_boot(str(machine(place)), OLD, "20261129T080000Z", boots)

    def tell(*entries, boot=NEW, **changed):
        root = str(machine(place, **changed))
        raws = {raw.sbdf: raw for raw in read_machine(root)}
        kept = Kept(entries, read_host_bridges(root))
        return [
            each.text for each in hardware_changed(boots, boot, decode_machine(raws.values()), raws, kept)
        ]

    tell.boots = Path(boots)
    return tell


def test_the_same_machine_says_nothing(told):
    assert told() == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"bus": 7}, "1 renumbered"),
        ({"nic": card(1)}, "1 replaced"),
        ({"port": "0000:00:1d.0"}, "1 new, 1 gone"),
    ],
)
def test_what_has_changed_is_one_line(told, changed, words):
    (text,) = told(**changed)
    assert "since the boot of 20261129T080000Z: " in text
    assert words in text or "moved" in text
    assert "pcipt diff" in text
    assert "kept for guests" not in text


def test_what_is_kept_for_guests_is_told_again(told):
    (text,) = told(ENTRY, nic=card(1))
    assert "changed functions that are kept for guests: 1, run `pcipt policy check`" in text


def test_this_boot_is_not_compared_with_itself_nor_with_what_cannot_be_read(told):
    assert told(boot=OLD, nic=card(1)) == []
    (recorded,) = told.boots.iterdir()
    os.rename(recorded / "sys", recorded / "gone")
    assert told(nic=card(1)) == []
