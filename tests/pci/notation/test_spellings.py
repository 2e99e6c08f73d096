import pytest

from pcipt.errors import AddressError
from pcipt.pci import PciPath, Sbdf, SlotFilter, parse_sbdf, parse_slot, parse_target
from pcipt.pci.notation.spellings import plain_address

CARD = Sbdf(0, 1, 0, 0)
XML = "<address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>"
HOSTDEV = """<hostdev mode='subsystem' type='pci' managed='yes'>
  <source>
    <address domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
  </source>
  <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/>
</hostdev>"""
NODEDEV = "<domain>0</domain>\n<bus>1</bus>\n<slot>0</slot>\n<function>0</function>"

#  how another program writes the address of one function -> which one it is
ONE = [
    ("pci@0000:01:00.0", CARD),  # lshw -businfo
    ("pci@01:00.0", CARD),
    ("PCI@0000:01:00.0", CARD),
    ("pci-pt-01_00.0", CARD),  # QEMU under Xen
    ("pci-pt-ff_1f.7", Sbdf(0, 0xFF, 0x1F, 7)),
    ("pci-0000:01:00.0", CARD),  # udev
    ("pci-0000:01:00.0-nvme-1", CARD),
    ("pci-0000:00:1f.2-ata-1.0", Sbdf(0, 0, 0x1F, 2)),
    ("pci:0000:01:00.0", CARD),
    ("pci 0000:01:00.0:", CARD),  # dmesg
    ("PCI:1:0:0", CARD),  # Xorg
    ("PCI:10:0:0", Sbdf(0, 10, 0, 0)),  # decimal
    ("PCI:1@10:31:7", Sbdf(10, 1, 31, 7)),
    ('"PCI:1:0:0"', CARD),
    ('BusID "PCI:1:0:0"', CARD),
    ('    BusID      "PCI:1:0:0"', CARD),
    ('Option "BusID" "PCI:1:0:0"', CARD),
    ("PCI_SLOT_NAME=0000:01:00.0", CARD),
    ("pci=['01:00.0']", CARD),
    ("pci = ['01:00.0@5,permissive=1']", CARD),
    ("PCI bus 10, device 0, function 1", Sbdf(0, 10, 0, 1)),  # Windows
    ("PCI Slot 3 (PCI bus 10, device 0, function 1)", Sbdf(0, 10, 0, 1)),
    ("0x0000:0x01:0x00.0x0", CARD),
    ("0x01:0x00.0", CARD),
    ("00:0x1a.0", Sbdf(0, 0, 0x1A, 0)),
    ("{01:00.0}", CARD),
    ("[01:00.0]", CARD),
    ("<01:00.0>", CARD),
    ("'01:00.0'", CARD),
    ("[ '01:00.0' ]", CARD),  # the list of xl's pci=
    ("0000:01:00.0:", CARD),
    ("0000:01:00.0,", CARD),
    (XML, CARD),
    (XML.replace("'", '"'), CARD),
    (XML.replace("0x01", "10"), Sbdf(0, 10, 0, 0)),  # decimal
    (XML.replace("0x01", "012"), Sbdf(0, 10, 0, 0)),  # octal
    ("<address bus='0x01' slot='0x00' function='0x0'/>", CARD),
    ("domain=0x0 bus=0x1 slot=0x0 function=0x0", CARD),
    (HOSTDEV, CARD),  # the host's, not the guest's
    (NODEDEV, CARD),
    ("0/0000:01:00.0", CARD),  # xapi
    ("1/01:00.0", CARD),
    ("01:00.0@5", CARD),  # xl
    ("01:00.0,permissive=1", CARD),
    ("0000:01:00.0@1f,msitranslate=1,power_mgmt=0", CARD),
    ("01:00.0, rdm_policy=strict", CARD),
    ("bdf=01:00.0,permissive=1", CARD),
    ("host=01:00.0", CARD),  # QEMU
    ("vfio-pci,host=0000:01:00.0,id=net0", CARD),
    ("xen-pci-passthrough,hostaddr=0000:01:00.0", CARD),
    ("/sys/bus/pci/devices/0000:01:00.0", CARD),
    ("/sys/bus/pci/devices/0000:01:00.0/", CARD),
    ("/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/net/eth0", CARD),
    ("/sys/bus/pci/drivers/pciback/0000:01:00.0", CARD),
    ("/proc/bus/pci/01/00.0", CARD),
    ("/proc/bus/pci/0001:01/00.0", Sbdf(1, 1, 0, 0)),
    ("00:1c.0/01:00.0", CARD),  # lspci -PP
    ("dom0:01_00.0:0x8086:0x10d3::p020000", CARD),  # Qubes
    ("01_00.0:0x8086:0x10d3::p020000", CARD),
]

#  what names several, or a place
OTHERS = [
    ("01:00.*@5", SlotFilter(None, 1, 0, None)),
    ("01:00,pcie=1", SlotFilter(None, 1, 0, None)),  # Proxmox
    ("{01:00.*}", SlotFilter(None, 1, 0, None)),
    ("00:1c.0/00.0", PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))),  # lspci -P
    ("00:1c.0/02.1/00.0", PciPath(0, ((0, 0x1C, 0), (0, 2, 1), (0, 0, 0)))),
]


@pytest.mark.parametrize(("text", "expected"), ONE)
def test_what_another_program_writes_is_the_function_it_names(text, expected):
    assert parse_target(text) == parse_sbdf(text) == expected
    assert parse_slot(text).matches(expected)


@pytest.mark.parametrize(("text", "expected"), OTHERS)
def test_a_set_or_a_path_keeps_its_meaning(text, expected):
    assert parse_target(text) == expected


#  near misses: no address, and no other one is made of them
WRONG = [
    "PCI:1:0",
    "PCI:300:0:0",  # bus 300
    "PCI:1:0:8",
    "pci@",
    "pci-pt-",
    "{01:00.0",
    "{}",
    "{{01:00.0}}x",
    "01:00.0@555",
    "01:00.0@@5",
    "01:00.0,=1",
    "/sys/bus/pci/devices/",
    "/",
    "//",
    "/sys/bus/pci/devices/0000:01:00.0x",
    "<address bus='0x01' slot='0x00'/>",
    XML.replace("0x01", "0x101"),
    XML.replace("0x01", "08"),
    "0/0000:01:00.0,0/0000:02:00.0",  # two
    "host=",
    "0x",
    "\u0660/01:00.\u0660",
    "(" * 3000 + "01:00.0",
    "[" * 1500 + "01:00.0" + "]" * 1500,
    "," * 100_000,
    "01:00.0" + ",a" * 100_000,
    "a=" * 2000,
    "<source" * 500,
]


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30])
def test_what_is_no_address_stays_none(text):
    with pytest.raises(AddressError) as caught:
        parse_target(text)
    assert caught.value.text == text


@pytest.mark.parametrize("text", ["0000:01:00.0", "1a.0", "01:", "*", ".1", "", "01_00.0", "00_1c.0-00_00.0"])
def test_pcipts_own_notations_are_left_alone(text):
    assert plain_address(text) == text
