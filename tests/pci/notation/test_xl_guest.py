"""What a guest's configuration file says of its devices."""

import re

import pytest

from pcipt.errors import MalformedError
from pcipt.pci import SlotFilter
from pcipt.pci.notation.xl_guest import parse_device, parse_xl_guest

F = SlotFilter(0, 0x36, 0, 0)
DEVICES = [
    # an item, its fields
    ("36:00.0", {"slot": F}),
    ("0000:36:00.0", {"slot": F}),
    ("1:36:00.0", {"slot": SlotFilter(1, 0x36, 0, 0)}),
    ("36:0.*", {"slot": SlotFilter(0, 0x36, 0, None)}),
    # three ways of one device: xl-pci-configuration(5) has them with slot 20, which xl refuses
    ("36:00.0@1f,seize=1", {"slot": F, "vslot": 0x1F, "switches": {"seize"}}),
    ("36:00.0,vslot=1f,seize=1", {"slot": F, "vslot": 0x1F, "switches": {"seize"}}),
    ("bdf=36:00.0,vslot=1f,seize=1", {"slot": F, "vslot": 0x1F, "switches": {"seize"}}),
    ("name=gpu,permissive=1", {"slot": None, "name": "gpu", "switches": {"permissive"}}),
    ("36:00.0,rdm_policy=relaxed,", {"slot": F, "relaxed": True}),
    ("36:00.0,permissive=yes", {"slot": F, "odd": ("permissive=yes",)}),  # atoi makes 0 of it
    ("36:00.0,permissive=1,permissive=0", {"slot": F}),  # the last holds
]


@pytest.mark.parametrize(("text", "fields"), DEVICES)
def test_a_device(text, fields):
    found = parse_device(text)
    expected = {"name": "", "vslot": None, "switches": set(), "relaxed": False, "odd": ()} | fields
    assert {name: getattr(found, name) for name in expected} == expected
    assert found.text == text


@pytest.mark.parametrize(
    ("text", "options"), [("36:00.0", ""), ("36:00.0@5,seize=1", "@5,seize=1"), ("name=x", "")]
)
def test_what_follows_the_address(text, options):
    assert parse_device(text).options == options


WRONG_DEVICES = [
    ("", "it is no address"),
    ("36:00", "it is no address"),
    (" 36:00.0", "it is no address"),
    ("36:20.0", "device 20 is above 1f"),
    ("36:00.8", "function 8 is above 7"),
    ("10000:36:00.0", "segment 10000 is above ffff"),
    ("36:00.0@20", "slot 20 is above 1f (hexadecimal)"),
    ("36:00.0@", "is not a number"),
    ("36:00.0x", "a comma is expected"),
    ("36:00.0, permissive=1", "xl does not know the option ' permissive'"),  # the space is part of the name
    ("36:00.0,permissive", "has no value"),
    ("36:00.0,rdm_policy=none", "rdm_policy is strict or relaxed"),
    ("36:00.0,name=gpu", "either an address or a name"),
    ("vslot=5", "either an address or a name"),
    ("bdf=gpu", "is no address"),
]


@pytest.mark.parametrize(("text", "why"), WRONG_DEVICES)
def test_a_device_that_xl_refuses(text, why):
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_device(text)


KINDS = [
    ("", "pv"),
    ('type = "hvm"', "hvm"),
    ('type = "pvh"', "pvh"),
    ('type = "p"', "pv"),  # xl compares beginnings
    ('builder = "hvm"', "hvm"),
    ('builder = "generic"', "pv"),
    ('type = "hvm"\nbuilder = "hvm"', "hvm"),
]


@pytest.mark.parametrize(("text", "kind"), KINDS)
def test_the_kind_of_guest(text, kind):
    assert parse_xl_guest(text, "f").kind == kind


WRONG = [
    ('type = "arm"', 1, "is no kind of guest"),
    ('type = "pv"\nbuilder = "hvm"', 2, "or does not agree with type="),
    ('name = "w"\npci = [ "zz" ]', 2, "'zz' of pci: it is no address"),
    ('pci = [ [ "01:00.0" ] ]', 1, "an item of pci is a list"),
]


@pytest.mark.parametrize(("text", "line", "why"), WRONG)
def test_a_file_that_xl_refuses(text, line, why):
    with pytest.raises(MalformedError) as caught:
        parse_xl_guest(text, "f")
    assert caught.value.offset == line
    assert why in caught.value.why


def test_a_guest():
    text = """# web
name = "web"
memory = 512
maxmem = 0x400
type = "hvm"
pci_permissive = 1
rdm = "strategy=host,policy=relaxed"
passthrough = "sync_pt"
pci = [ "36:00.0", "37:00.0,permissive=0" ]
"""
    guest = parse_xl_guest(text, "/etc/xen/web.cfg")
    assert (guest.source, guest.name, guest.kind, guest.line) == ("/etc/xen/web.cfg", "web", "hvm", 9)
    assert (guest.memory, guest.most, guest.passthrough, guest.rdm_policy) == (
        512,
        1024,
        "sync_pt",
        "relaxed",
    )
    assert [each.switches for each in guest.devices] == [{"permissive"}, set()]
    assert not any(each.relaxed for each in guest.devices)  # xl ignores `rdm` if it has a policy
    assert not guest.single


@pytest.mark.parametrize(("text", "single"), [('pci = "36:00.0"', True), ("", False), ("pci = []", False)])
def test_pci_that_is_not_a_list_gives_no_device(text, single):
    guest = parse_xl_guest(text, "f")
    assert (guest.devices, guest.single) == ((), single)
