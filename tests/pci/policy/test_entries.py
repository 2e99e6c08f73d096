"""Entries of the policy: read, written, refused."""

import tomllib

import attrs
import pytest

from pcipt.errors import InputError
from pcipt.pci import Ids, PciPath
from pcipt.pci.identity import NO_SERIAL, Identity
from pcipt.pci.policy.compiled import line_from_entry, text_from_policy
from pcipt.pci.policy.entries import Entry, entry_from_table, insisted_on, text_from_entry
from tests.pci.policy.identities import IDS, PATH, identity

ENTRIES = [
    Entry(Identity(PATH)),
    Entry(Identity(PATH, serial=NO_SERIAL)),
    Entry(insisted_on(identity(slot="4")), "web", 'the "second" \\ NIC'),
    Entry(identity(PciPath(0xFFFF, ((0xE0, 0, 1), (1, 2, 3), (0, 0, 7))), None, Ids(0, 0, 0, 0, 0, 0), 1)),
]
PORTS = [PciPath(0, ((0, 0x1C, 0),)), PciPath(1, ((0x80, 1, 0), (0, 0, 0), (1, 3, 0)))]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_survives_its_file(entry):
    document = tomllib.loads(text_from_entry(entry))
    (table,) = document.pop("passthrough")
    assert document == {}
    assert entry_from_table(table, "") == entry


def test_a_new_entry_insists_on_neither_class_nor_slot():
    kept = insisted_on(identity(slot="4"))
    assert (kept.slot, kept.ids.class_code) == (None, None)
    assert kept.ids == attrs.evolve(IDS, class_code=None)
    assert (kept.serial, kept.path) == (identity().serial, PATH)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "no path"),
        ({"path": "03:00.0"}, "expected a PCI path"),
        ({"path": "pci_0000_03_00_0"}, "expected a PCI path"),
        ({"path": "00_1c.8"}, "above 7"),
        ({"path": 3}, "path is not a text"),
        ({"path": "10000_00_1c.0"}, "above ffff"),
        ({"path": "00_1c.0", "vendr": 1}, "unknown key vendr"),
        ({"path": "00_1c.0", "vendor": 0x10000}, "vendor is not a number"),
        ({"path": "00_1c.0", "vendor": True}, "vendor is not a number"),
        ({"path": "00_1c.0", "device": "1533"}, "device is not a number"),
        ({"path": "00_1c.0", "revision": 0x100}, "up to 0xff"),
        ({"path": "00_1c.0", "serial": "1234"}, "neither eight bytes"),
        ({"path": "00_1c.0", "root": "PCI 0"}, "ACPI name"),
        ({"path": "00_1c.0", "guest": "a b"}, "guest is not a name"),
        ({"path": "00_1c.0", "guest": "-rf"}, "guest is not a name"),
        ({"path": "00_1c.0", "note": "a\x1bb"}, "printable"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(table, why):
    with pytest.raises(InputError, match="some file") as caught:
        entry_from_table(table, "some file")
    assert why in caught.value.why


def test_the_list_for_the_initramfs():
    lines = text_from_policy(ENTRIES, PORTS).splitlines()
    assert lines[0].startswith("#")
    assert lines[1:] == [
        "- 0000:00 0:1c.0/0:00.0 - - - - - - -",
        "- 0000:00 0:1c.0/0:00.0 - - - - - - none",
        "\\_SB_.PCI0 0000:00 0:1c.0/0:00.0 0x8086 0x1533 0x15d9 0x1533 0x03 - 001b21ffff304cd8",
        "- ffff:e0 0:00.1/1:02.3/0:00.7 0x0000 0x0000 0x0000 0x0000 0x00 0x000000 0000000000000001",
        "- 0000:00 0:1c.0 port",
        "- 0001:80 0:01.0/0:00.0/1:03.0 port",
    ]
    assert all(len(line.split(" ")) == 10 for line in map(line_from_entry, ENTRIES))
