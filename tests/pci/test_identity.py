"""The identity of a function: what is in it, and what differs."""

import attrs
import pytest

from pcipt.pci import Ids, PciPath, RawFunction, Sbdf, decode_machine
from pcipt.pci.config import ConfigSpace
from pcipt.pci.identity import (
    FIELDS,
    NO_SERIAL,
    Difference,
    Identity,
    differences,
    identities_of,
    identity_of,
    parse_serial,
    serial_text,
    shown_difference,
    shown_fields,
)
from tests.pci.spaces import extended_list, space, standard_list

EXPRESS = standard_list((0x40, 0x10, {0x02: (2, 0x0002)}))
NIC = Sbdf(0, 3, 0, 0)
IDS = Ids(0x8086, 0x1533, 0x020000, 0x03, 0x15D9, 0x1533)
PATH = PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))
WHOLE = Identity(PATH, "\\_SB_.PCI0", IDS, 0x001B21FFFF304CD8, "4")


def config(low, high, size=4096, id_=3):
    serial = extended_list((0x100, 1, {}), (0x140, id_, {4: (4, low), 8: (4, high)}))
    return space(EXPRESS | serial, size=size)


def read(data, **more):
    raw = RawFunction(NIC, data, ids=IDS, root_bus=3)
    return identity_of(decode_machine([raw]).functions[NIC], ConfigSpace(data), **more)


def test_the_serial_number_is_that_of_lspci():
    found = read(config(0xFF304CD8, 0x001B21FF), root="\\_SB_.PCI0", slot="4")
    assert serial_text(found.serial) == "00-1b-21-ff-ff-30-4c-d8"
    assert (found.path, found.root, found.slot, found.ids) == (
        PciPath(0, ((3, 0, 0),)), "\\_SB_.PCI0", "4", IDS,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "serial", "why"),
    [
        (config(0, 0), NO_SERIAL, "a vendor who gave none"),
        (config(0xFFFF_FFFF, 0xFFFF_FFFF), NO_SERIAL, "the same in ones"),
        (config(1, 2, id_=4), NO_SERIAL, "another capability"),
        (space(size=256), NO_SERIAL, "a conventional function has no extended space"),
        (config(1, 2, size=256), None, "the extended space was not read"),
        (config(1, 2, size=64), None, "only the header was read"),
        (config(1, 2, size=0x148), None, "the capability was read in part"),
        (b"\xff" * 4096, None, "it does not answer"),
        (b"", None, "nothing was read"),
    ],
)
def test_what_is_no_serial_number(data, serial, why):
    assert read(data).serial == serial, why


@pytest.mark.parametrize("serial", [NO_SERIAL, 1, 0x001B21FFFF304CD8, (1 << 64) - 2])
def test_serial_numbers_survive_their_text(serial):
    assert parse_serial(serial_text(serial)) == serial


@pytest.mark.parametrize("digits", ["00", "ff"])
def test_a_number_that_no_device_can_have_is_none(digits):
    assert parse_serial("-".join([digits] * 8)) == NO_SERIAL


@pytest.mark.parametrize("text", ["", "00-1b", "00-1B-21-ff-ff-30-4c-d8", "00:1b:21:ff:ff:30:4c:d8", "1"])
def test_other_texts_are_no_serial_numbers(text):
    assert parse_serial(text) is None


def changed():
    """Give for each field the name, and the whole identity with another value in this field."""
    ids = {
        "vendor": "vendor", "device": "device", "subsystem_vendor": "subsystem_vendor",
        "subsystem_device": "subsystem_device", "revision": "revision", "class": "class_code",
    }  # fmt: skip
    others = {"path": PciPath(0, ((0, 0x1D, 0), (0, 0, 0))), "root": "\\_SB_.PC01", "serial": 5, "slot": "5"}
    for name in FIELDS:
        if name in ids:
            yield name, attrs.evolve(WHOLE, ids=attrs.evolve(IDS, **{ids[name]: 0}))
        else:
            yield name, attrs.evolve(WHOLE, **{name: others[name]})


@pytest.mark.parametrize(("name", "other"), list(changed()))
def test_each_field_is_compared(name, other):
    assert [each.field for each in differences(WHOLE, other)] in ([name], ["path", name])
    assert name in [each.field for each in differences(WHOLE, other)]


def test_nothing_differs_from_itself_and_none_insists_on_nothing():
    assert differences(WHOLE, WHOLE) == ()
    assert differences(Identity(), WHOLE) == ()


@pytest.mark.parametrize("name", FIELDS)
def test_what_cannot_be_seen_is_not_taken_for_right(name):
    assert {name} <= {each.field for each in differences(WHOLE, Identity())}
    assert all(each.found is None for each in differences(WHOLE, Identity()))


def test_a_root_bus_that_moved_is_no_difference_where_its_host_bridge_has_a_name():
    moved = attrs.evolve(WHOLE, path=PciPath(0, ((0x40, 0x1C, 0), (0, 0, 0))))
    assert differences(WHOLE, moved) == ()
    unnamed = attrs.evolve(WHOLE, root=None)
    assert differences(unnamed, moved) == (Difference("path", "00_1c.0-00_00.0", "40_1c.0-00_00.0"),)
    assert [each.field for each in differences(WHOLE, attrs.evolve(moved, root=None))] == ["path", "root"]


def test_only_root_is_told_serial_numbers():
    assert shown_fields(WHOLE, secret=True)["serial"] == "00-1b-21-ff-ff-30-4c-d8"
    assert "serial" not in shown_fields(WHOLE, secret=False)
    (other,) = differences(WHOLE, attrs.evolve(WHOLE, serial=5))
    assert shown_difference(other, secret=False) == "another serial number"
    assert "00-1b" in shown_difference(other, secret=True)
    (none,) = differences(WHOLE, attrs.evolve(WHOLE, serial=NO_SERIAL))
    assert shown_difference(none, secret=False) == "no serial number"
    assert shown_difference(none, secret=True) == "serial none instead of 00-1b-21-ff-ff-30-4c-d8"
    (unknown,) = differences(WHOLE, attrs.evolve(WHOLE, serial=None))
    assert shown_difference(unknown, secret=False) == "serial number not known"
    (some,) = differences(attrs.evolve(WHOLE, serial=NO_SERIAL), WHOLE)
    assert "00-1b" not in shown_difference(some, secret=False)


def test_host_bridges_and_slots_find_their_functions():
    raws = [
        RawFunction(Sbdf(0, 0x40, 1, 0), space(size=64), root_bus=0x40),
        RawFunction(Sbdf(1, 0x40, 1, 0), space(size=64), root_bus=0x40),
    ]
    machine = decode_machine(raws)
    found = identities_of(machine, {}, {(0, 0x40): "\\_SB_.PC01"}, {(1, 0x40, 1): "9"})
    assert [(each.root, each.slot) for each in found.values()] == [("\\_SB_.PC01", None), (None, "9")]
