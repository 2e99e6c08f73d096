import contextlib
import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.errors import AddressError
from pcipt.pci import (
    PciPath,
    Sbdf,
    SlotFilter,
    parse_sbdf,
    parse_slot,
    parse_target,
    sbdf_from_devfn,
)
from pcipt.pci.address import LIMITS, functions_of_bus

FIELDS = tuple(st.integers(0, limit) for limit in LIMITS.values())
SBDFS = st.builds(Sbdf, *FIELDS)
HOPS = st.lists(st.tuples(*FIELDS[1:]), min_size=2, max_size=6).map(tuple)
PATHS = st.builds(PciPath, FIELDS[0], HOPS)
NUMBER = Sbdf(0, 0, 0x1A, 0)

#  how the address of one function is written -> which one it is
ONE = [
    ("1a.0", NUMBER),
    ("00:1a.0", NUMBER),
    ("0000:00:1a.0", NUMBER),
    ("0:0:1a.0", NUMBER),  # xl's short form
    ("0:1:2.3", Sbdf(0, 1, 2, 3)),
    ("000000:0000:001a.00", NUMBER),  # leading zeros
    ("0000:00:1A.0", NUMBER),  # case does not matter
    ("ABCD:EF:1F.7", Sbdf(0xABCD, 0xEF, 0x1F, 7)),
    ("(0000:04:01.0)", Sbdf(0, 4, 1, 0)),  # xen-pciback.hide=
    ("(04:01.0)", Sbdf(0, 4, 1, 0)),
    ("00_1a.0", NUMBER),  # Qubes
    ("00_1A.0", NUMBER),
    ("dom0:00_1a.0", NUMBER),
    ("DOM0:00_1a.0", NUMBER),
    ("dom0:04:01.0", Sbdf(0, 4, 1, 0)),
    ("0001_00_1a.0", Sbdf(1, 0, 0x1A, 0)),
    ("pci_0000_00_1a_0", NUMBER),  # libvirt
    ("PCI_0000_00_1A_0", NUMBER),
    ("pci_10000_e1_00_0", Sbdf(0x10000, 0xE1, 0, 0)),
    ("10000:e1:00.0", Sbdf(0x10000, 0xE1, 0, 0)),  # VMD: a segment of more than 16 bits
    ("ffffffff:ff:1f.7", Sbdf(0xFFFF_FFFF, 0xFF, 0x1F, 7)),
]

#  what names no single function -> the filter it is: that of lspci -s
SETS = [
    ("00:1a.*", SlotFilter(None, 0, 0x1A, None)),  # xl: all functions
    ("0000:00:1a.*", SlotFilter(0, 0, 0x1A, None)),
    ("1a", SlotFilter(None, None, 0x1A, None)),
    ("1a.", SlotFilter(None, None, 0x1A, None)),
    ("00:1a", SlotFilter(None, 0, 0x1A, None)),
    ("02:", SlotFilter(None, 2, None, None)),
    ("02:.", SlotFilter(None, 2, None, None)),
    (":1a.0", SlotFilter(None, None, 0x1A, 0)),  # an empty part is any, not 0
    ("*:1a.0", SlotFilter(None, None, 0x1A, 0)),
    ("::1a.0", SlotFilter(None, None, 0x1A, 0)),
    ("*:00:1a.0", SlotFilter(None, 0, 0x1A, 0)),
    ("1::", SlotFilter(1, None, None, None)),
    (".7", SlotFilter(None, None, None, 7)),
    ("*", SlotFilter()),
    ("*:*:*.*", SlotFilter()),
    ("(00:1a.*)", SlotFilter(None, 0, 0x1A, None)),
]

#  PCI paths of several hops
WAYS = [
    ("00_1c.0-00_00.0", PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))),
    ("00_1C.0-00_00.0", PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))),
    ("dom0:00_1c.0-00_00.0", PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))),
    ("0001_80_01.0-00_00.0-01_1f.7", PciPath(1, ((0x80, 1, 0), (0, 0, 0), (1, 0x1F, 7)))),
    ("10000_e0_06.0-00_00.0", PciPath(0x10000, ((0xE0, 6, 0), (0, 0, 0)))),
]

#  what is no address -> the wrong field, and what must be said about it
WRONG = [
    ("", "address", "it is empty"),
    ("()", "address", "it is empty"),
    ("dom0:", "address", "it is empty"),
    ("(dom0:)", "address", "it is empty"),
    ("00:82.0", "device", "device 82 is above 1f"),
    ("00:20.0", "device", "device 20 is above 1f"),
    ("00:1a.8", "function", "function 8 is above 7"),
    ("100:1a.0", "bus", "bus 100 is above ff"),
    ("100000000:00:1a.0", "segment", "segment 100000000 is above ffffffff"),
    ("F" * 60 + ":00:1a.0", "segment", "segment ffffffffffffffffffff is above ffffffff"),
    ("00_82.0", "device", "device 82 is above 1f"),
    ("00_1a.8", "function", "function 8 is above 7"),
    ("00_1c.0-00_82.0", "device", "device 82 is above 1f"),
    ("pci_0000_00_1a_8", "function", "function 8 is above 7"),
    ("pci_0000_100_1a_0", "bus", "bus 100 is above ff"),
    ("00:1a.0 ", "function", "function '0 ' is not hexadecimal"),
    (" 00:1a.0", "bus", "bus ' 00' is not hexadecimal"),
    ("00:1a.0\n", "function", r"function '0\n' is not hexadecimal"),
    ("00: 1a.0", "device", "device ' 1a' is not hexadecimal"),
    ("00:1a.0.0", "function", "there is more text after function '0.0'"),
    ("00:1a.+1", "function", "function '+1' is not hexadecimal"),
    ("00:-1.0", "device", "device '-1' is not hexadecimal"),
    ("0_0:1a.0", "device", "device '0:1a' is not hexadecimal"),
    ("00:**.0", "device", "device '**' is not hexadecimal"),
    ("xx:00:1a.0", "segment", "segment 'xx' is not hexadecimal"),
    (
        "00:1a.\u0660",
        "function",
        "function '\u0660' is not hexadecimal",
    ),  # an Arabic zero is a digit to Python
    ("00:1a.\uff10", "function", "function '\uff10' is not hexadecimal"),  # and so is a wide one
    (
        "pc\u0131_0000_00_1a_0",
        "path",
        "is not bus_device.function",
    ),  # a dotless i is an i when case is ignored
    ("0:0:0:1a.0", "address", "it has too many colons"),
    ("dom0:0:0:0:1a.0", "address", "it has too many colons"),
    ("(00:1a.0", "bus", "bus '(00' is not hexadecimal"),
    ("00:1a.0)", "function", "function '0)' is not hexadecimal"),
    ("((00:1a.0))", "bus", "bus '(00' is not hexadecimal"),
    ("(00:1a.0)(00:1b.0)", "bus", "bus '1a.0)(00' is not hexadecimal"),
    ("domU:00_1a.0", "bus", "bus 'domU:00' is not hexadecimal"),
    ("00_1a", "path", "hop '00_1a' is not bus_device.function"),
    ("00_1a.*", "function", "function '*' is not hexadecimal"),
    ("_1a.0", "bus", "bus is missing"),
    ("00_.0", "device", "device is missing"),
    ("00_1a.", "function", "function is missing"),
    ("_00_1a.0", "segment", "segment is missing"),
    ("0_0_0_1a.0", "device", "device '0_0_1a' is not hexadecimal"),
    ("00_1c.0-", "path", "hop '' is not bus_device.function"),
    ("-00_1c.0", "path", "hop '' is not bus_device.function"),
    ("00_1c.0--00_00.0", "path", "hop '' is not bus_device.function"),
    ("00_1c.0-00:00.0", "path", "hop '00:00.0' is not bus_device.function"),
    ("00_1c.0-0000_00_00.0", "device", "device '00_00' is not hexadecimal"),  # a segment stands in front only
    ("pci_0000_00_1a", "address", "pci_segment_bus_device_function"),
    ("pci_0000_00_1a_0_0", "address", "pci_segment_bus_device_function"),
    ("pci_0000_00_1a.0", "address", "pci_segment_bus_device_function"),
    ("pci_0000__1a_0", "bus", "bus is missing"),
    ("pci_", "address", "pci_segment_bus_device_function"),
]


@pytest.mark.parametrize(("text", "expected"), ONE + SETS + WAYS)
def test_every_notation_is_understood(text, expected):
    assert parse_target(text) == expected


@pytest.mark.parametrize(("text", "expected"), SETS)
def test_a_set_means_the_same_as_a_filter(text, expected):
    assert parse_slot(text) == expected


@pytest.mark.parametrize(("text", "field", "why"), WRONG)
def test_an_error_names_the_wrong_field(text, field, why):
    with pytest.raises(AddressError) as caught:
        parse_target(text)
    assert (caught.value.text, caught.value.field) == (text, field)
    assert why in caught.value.why
    with pytest.raises(AddressError):
        parse_slot(text)


@pytest.mark.parametrize(("text", "expected"), ONE)
def test_one_function_is_what_it_is(text, expected):
    assert parse_sbdf(text) == expected


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("00:1a.*", "function"),
        ("00:1a", "function"),
        ("00:.0", "device"),
        (":1a.0", "bus"),
        ("::1a.0", "bus"),
        ("*:00:1a.0", "segment"),
        ("00_1c.0-00_00.0", "path"),
        ("00:82.0", "device"),
    ],
)
def test_where_one_function_is_expected_a_set_is_refused(text, field):
    with pytest.raises(AddressError) as caught:
        parse_sbdf(text)
    assert caught.value.field == field


#  lspci -s: a part that is not given is any
SLOTS = [
    ("1a.0", SlotFilter(None, None, 0x1A, 0)),
    ("1a", SlotFilter(None, None, 0x1A, None)),
    ("02:", SlotFilter(None, 2, None, None)),
    ("02:00", SlotFilter(None, 2, 0, None)),
    (".1", SlotFilter(None, None, None, 1)),
    ("02:.1", SlotFilter(None, 2, None, 1)),
    ("02:*.1", SlotFilter(None, 2, None, 1)),
    (":", SlotFilter()),
    ("::", SlotFilter()),
    (".", SlotFilter()),
    ("*", SlotFilter()),
    ("*:*:*.*", SlotFilter()),
    ("1::", SlotFilter(1, None, None, None)),
    ("1:2:", SlotFilter(1, 2, None, None)),
    ("0000:00:1a.0", SlotFilter(0, 0, 0x1A, 0)),
    (":1a.0", SlotFilter(None, None, 0x1A, 0)),
    ("00_1a.0", SlotFilter(0, 0, 0x1A, 0)),
    ("pci_0001_00_1a_0", SlotFilter(1, 0, 0x1A, 0)),
]


@pytest.mark.parametrize(("text", "expected"), SLOTS)
def test_a_slot_filter_leaves_open_what_is_not_given(text, expected):
    assert parse_slot(text) == expected


def test_a_path_is_no_slot_filter():
    with pytest.raises(AddressError) as caught:
        parse_slot("00_1c.0-00_00.0")
    assert caught.value.field == "path"


CROWD = [
    Sbdf(*fields)
    for fields in [(0, 0, 0x1A, 0), (0, 0, 0x1A, 1), (0, 2, 0, 1), (1, 2, 0, 0), (1, 0, 0x1A, 0)]
]


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci is not installed")
@pytest.mark.parametrize("text", [text for text, _ in SLOTS if "_" not in text])
def test_a_slot_filter_chooses_what_lspci_chooses(text, tmp_path):
    dump = tmp_path / "dump"
    dump.write_text("".join(f"{sbdf} x\n00: 86 80 01 00{' 00' * 12}\n\n" for sbdf in CROWD))
    command = ["lspci", "-F", str(dump), "-D", "-n", "-s", text]
    listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    chosen = [str(sbdf) for sbdf in CROWD if parse_slot(text).matches(sbdf)]
    assert sorted(re.findall(r"^\S+", listed, re.MULTILINE)) == sorted(chosen)


def test_every_devfn_has_an_address_and_back():
    for devfn in range(256):
        sbdf = sbdf_from_devfn(1, 2, devfn)
        assert sbdf.devfn == devfn
        assert parse_sbdf(str(sbdf)) == sbdf
    assert sbdf_from_devfn(0, 0, 0xD1) == Sbdf(0, 0, 0x1A, 1)


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_every_field_has_its_limit(name, limit):
    for value in (limit, limit + 1):
        fields = {**dict.fromkeys(LIMITS, 0), name: value}
        text = "{segment:04x}:{bus:02x}:{device:02x}.{function:x}".format(**fields)
        if value == limit:
            assert parse_sbdf(text) == Sbdf(**fields)
            continue
        with pytest.raises(AddressError) as caught:
            parse_sbdf(text)
        assert caught.value.field == name
        assert caught.value.why == f"{name} {value:x} is above {limit:x}"


@given(SBDFS)
def test_one_function_is_read_back_from_every_notation(sbdf):
    fields = f"{sbdf.segment:04x}_{sbdf.bus:02x}_{sbdf.device:02x}"
    for text in (str(sbdf), f"({sbdf})", f"{fields}.{sbdf.function:x}", f"pci_{fields}_{sbdf.function:x}"):
        for spelled in (text, text.upper(), f"dom0:{text}"):
            if not spelled.startswith("dom0:("):
                assert parse_sbdf(spelled) == sbdf
    assert parse_slot(str(sbdf)).matches(sbdf)


@given(PATHS)
def test_a_path_is_read_back(path):
    assert parse_target(str(path)) == path
    assert parse_target(str(path).upper()) == path
    assert str(path).startswith("0000_") is False


@given(st.builds(SlotFilter, *(st.none() | field for field in FIELDS)), SBDFS)
def test_a_filter_is_read_back_and_matches_field_by_field(slot, sbdf):
    parts = [
        "*" if part is None else f"{part:x}" for part in (slot.segment, slot.bus, slot.device, slot.function)
    ]
    assert parse_slot("{}:{}:{}.{}".format(*parts)) == slot
    expected = all(
        wanted is None or wanted == there
        for wanted, there in zip(
            (slot.segment, slot.bus, slot.device, slot.function),
            (sbdf.segment, sbdf.bus, sbdf.device, sbdf.function),
            strict=True,
        )
    )
    assert slot.matches(sbdf) == expected


@given(st.text(max_size=40) | st.text("0123456789abcdefABCDEF:._-*()pcidom \u0660", max_size=24))
def test_any_other_text_is_refused_and_nothing_else_happens(text):
    for parse in (parse_target, parse_slot, parse_sbdf):
        with contextlib.suppress(AddressError):
            target = parse(text)
            assert isinstance(target, Sbdf | SlotFilter | PciPath)
            assert re.search(r"[0-9a-fA-F:.*]", text)


def test_order_is_that_of_the_numbers():
    crowd = [Sbdf(0x10000, 0, 0, 0), Sbdf(0, 0xFF, 0, 0), Sbdf(0, 0x10, 2, 0), Sbdf(0, 0x10, 0x10, 0)]
    assert [str(sbdf) for sbdf in sorted(crowd)] == [
        "0000:10:02.0",
        "0000:10:10.0",
        "0000:ff:00.0",
        "10000:00:00.0",
    ]


@pytest.mark.parametrize(("segment", "fits"), [(0, True), (0xFFFF, True), (0x1_0000, False)])
def test_xen_has_16_bits_for_a_segment(segment, fits):
    assert Sbdf(segment, 0, 0, 0).fits_xen is fits


def test_the_functions_of_a_bus_are_all_its_addresses_in_order():
    found = list(functions_of_bus(1, 0x2F))
    assert found == [sbdf_from_devfn(1, 0x2F, devfn) for devfn in range(256)]
    assert {type(each) for each in found} == {Sbdf}
