import os
import threading

import pytest

from pcipt.host.files import CONFIG, Depth, Entry, Kind
from pcipt.host.function.raw_function import FunctionFiles, sbdf_from_name
from pcipt.host.sysfs import read_function
from pcipt.pci import Ids, Sbdf
from tests.machines import config
from tests.trees import EMPTY_LINE, a_directory, a_fifo, a_link, add, put

SBDF = Sbdf(0, 0, 0x1F, 2)
HOME = "pci0000:00/0000:00:1f.2"
pytestmark = pytest.mark.usefixtures("way")


def read(root, depth=Depth.FULL):
    return read_function(str(root), SBDF, depth)


NAMES = [
    ("0000:00:1f.2", Sbdf(0, 0, 0x1F, 2)),
    ("10000:e1:00.0", Sbdf(0x10000, 0xE1, 0, 0)),  # VMD
    ("ffffffff:ff:1f.7", Sbdf(0xFFFF_FFFF, 0xFF, 0x1F, 7)),
    ("00:1f.2", None),
    ("0000:00:1F.2", None),  # Linux writes lower case: this is another's work
    ("0000:00:20.0", None),
    ("0000:00:1f.8", None),
    ("00010:00:1f.2", None),  # Linux would write 0010
    ("0000:00:1f.2\n", None),
    ("0000:00:1f.2x", None),
    ("\u0660000:00:00.0", None),  # a digit, but not ours
    ("000000000:00:00.0", None),
    ("", None),
]


@pytest.mark.parametrize(("name", "expected"), NAMES)
def test_a_name_is_an_address_only_as_linux_writes_it(name, expected):
    assert sbdf_from_name(name) == expected


def test_everything_that_linux_tells_is_read(tmp_path):
    add(
        tmp_path,
        HOME,
        config=config(size=256),
        revision="0x05\n",
        subsystem_vendor="0x1028\n",
        subsystem_device="0x0518\n",
        numa_node="1\n",
        secondary_bus_number="16\n",  # decimal, unlike all others
        driver=a_link("../../../bus/pci/drivers/ahci"),
        physfn=a_link("../0000:00:1f.0"),
        resource="0x00000000feb00000 0x00000000feb1ffff 0x0000000000040200\n" + 12 * EMPTY_LINE,
    )
    raw = read(tmp_path)
    assert raw.findings == ()
    assert raw.config == config(size=256)
    assert raw.ids == Ids(0x8086, 0x10D3, 0x020000, 5, 0x1028, 0x0518)
    assert (raw.driver, raw.numa_node, raw.secondary) == ("ahci", 1, 16)
    assert raw.physfn == Sbdf(0, 0, 0x1F, 0)
    assert raw.resources[0].size == 0x2_0000


# The register reads 05: somebody renumbered the bus behind Linux's back.
LINUX_BUSES = [
    ((), 5),  # nothing below, and a kernel that names no bus: the register is all there is
    (("pci_bus/0000:03",), 3),
    (("0000:03:00.0", "0000:04:00.0"), 3),  # a recorded tree; the second is a virtual function
    (("pci_bus/0000:03", "0000:04:00.0"), 3),  # a virtual function alone is left
    (("pci_bus/0001:03",), 5),  # another segment's
    (("pci_bus/power",), 5),
]


@pytest.mark.parametrize(("below", "expected"), LINUX_BUSES)
def test_linux_number_of_the_bus_below_is_the_one_in_names(tmp_path, below, expected):
    home = add(tmp_path, HOME, secondary_bus_number="5\n")
    for name in below:
        (home / name).mkdir(parents=True)
    assert read(tmp_path).secondary == expected


def test_less_is_read_at_less_depth(tmp_path):
    add(tmp_path, HOME, config=config(size=4096), driver=a_link("../../../bus/pci/drivers/ahci"))
    glance, header, full = (read(tmp_path, depth) for depth in Depth)
    assert [len(raw.config) for raw in (glance, header, full)] == [64, 64, 4096]
    assert [raw.driver for raw in (glance, header, full)] == [None, "ahci", "ahci"]
    assert [len(raw.resources) for raw in (glance, header, full)] == [0, 7, 7]  # the rest is unused
    assert glance.ids == Ids(0x8086, 0x10D3, 0x020000)


OPTIONAL = ("revision", "subsystem_vendor", "numa_node", "secondary_bus_number", "driver", "physfn")


def test_what_not_every_kernel_or_device_has_is_not_missed(tmp_path):
    add(tmp_path, HOME)
    raw = read(tmp_path)
    assert raw.findings == ()
    assert (raw.ids.revision, raw.numa_node, raw.secondary, raw.driver, raw.physfn) == (None,) * 5


def a_socket(path):
    import socket

    here = os.getcwd()
    os.chdir(path.parent)  # a socket's path must be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


ODDITIES = [
    # file, what stands there, code of the finding, field that is then unknown
    ("vendor", None, "file-missing", "ids.vendor"),
    ("class", None, "file-missing", "ids.class_code"),
    ("resource", None, "file-missing", "resources"),
    ("config", "", "file-empty", "config"),
    ("vendor", "", "file-empty", "ids.vendor"),
    ("resource", "", "file-empty", "resources"),
    ("config", a_directory, "file-kind", "config"),
    ("config", a_fifo, "file-kind", "config"),
    ("config", a_socket, "file-kind", "config"),
    ("config", a_link("/proc/kmsg"), "file-kind", "config"),  # a link may lead anywhere
    ("config", a_link("../0000:00:1f.2/vendor"), "file-kind", "config"),
    ("config", "x" * 4097, "file-too-long", "config"),
    ("resource", a_fifo, "file-kind", "resources"),
    ("resource", "0" * (1 << 20), "file-too-long", "resources"),  # one line of a megabyte
    ("resource", "garbage\n" * 13, "resource-malformed", None),
    ("vendor", "0x8086", None, None),  # a recording without newline is fine
    ("vendor", "8086\n", "value-malformed", "ids.vendor"),
    ("vendor", "0x80_86\n", "value-malformed", "ids.vendor"),  # python would take it
    ("vendor", "0x18086\n", "value-malformed", "ids.vendor"),
    ("vendor", "-0x1\n", "value-malformed", "ids.vendor"),
    ("vendor", "0x8086\0", "value-malformed", "ids.vendor"),
    ("vendor", "\0\0\0\0", "value-malformed", "ids.vendor"),
    ("vendor", b"\xff\xfe\n", "value-malformed", "ids.vendor"),
    ("class", "0x1020000\n", "value-malformed", "ids.class_code"),
    ("class", "0x" + "0" * 40, "file-too-long", "ids.class_code"),
    ("numa_node", "-1\n", None, "numa_node"),  # how Linux says that there is none
    ("numa_node", "0x1\n", "value-malformed", "numa_node"),
    ("numa_node", "9" * 31, "value-malformed", "numa_node"),
    ("secondary_bus_number", "256\n", "value-malformed", "secondary"),
    ("driver", "e1000e\n", "file-kind", "driver"),  # a file where a link should be
    ("driver", a_link("/sys/bus/pci/drivers/e1000e"), "link-outside", "driver"),
    ("driver", a_link("../../../../../etc"), "link-outside", "driver"),
    ("driver", a_link("../../../bus/pci/drivers/gone"), None, None),  # recordings have no drivers
    ("physfn", a_link("../0000:00:1f"), "value-malformed", "physfn"),
    ("physfn", a_link("/sys/devices/0000:00:1f.0"), "link-outside", "physfn"),
    ("physfn", a_directory, "file-kind", "physfn"),
]


def field(raw, name):
    if name.startswith("ids."):
        return getattr(raw.ids, name.removeprefix("ids."))
    return getattr(raw, name)


@pytest.mark.parametrize(("name", "content", "code", "unknown"), ODDITIES)
def test_an_oddity_is_a_finding_and_costs_one_field(tmp_path, name, content, code, unknown):
    add(tmp_path, HOME, **{name: content})
    raw = read(tmp_path)
    assert [finding.code for finding in raw.findings] == ([code] if code else [])
    if unknown:
        assert not field(raw, unknown)
    for other in ("config", "resources", "ids.device"):
        if other != unknown and not (code == "resource-malformed" and other == "resources"):
            assert field(raw, other)


def test_an_ioerror_while_reading_is_a_finding():
    directory = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        files = FunctionFiles(directory, 2)
        files._bytes(Entry("mem", Kind.BINARY, 4096))  # nothing is mapped at 0: EIO
    finally:
        os.close(directory)
    assert [finding.code for finding in files.findings] == ["read-error"]
    assert "input/output error" in files.findings[0].text


def test_a_directory_that_is_removed_while_it_is_read_leaves_findings(tmp_path):
    home = add(tmp_path, HOME)
    directory = os.open(home, os.O_PATH | os.O_DIRECTORY)
    try:
        for file in home.iterdir():
            file.unlink()
        home.rmdir()
        files = FunctionFiles(directory, 4)
        raw = files.read(SBDF, Depth.FULL, None, 0)
    finally:
        os.close(directory)
    assert raw.config is None
    assert {finding.code for finding in raw.findings} == {"file-missing"}


def test_a_fifo_never_blocks_the_reader(tmp_path):
    home = add(tmp_path, HOME)
    for name in ("config", "vendor", "device", "class", "resource", "revision", "numa_node"):
        put(home / name, a_fifo)
    done = []
    reader = threading.Thread(target=lambda: done.append(read(tmp_path)), daemon=True)
    reader.start()
    reader.join(timeout=20)
    assert done
    assert len(done[0].findings) == 7


def test_a_driver_name_that_is_no_utf8_can_be_printed(tmp_path):
    name = os.fsdecode(b"../../../bus/pci/drivers/bad\xff\x1b")
    add(tmp_path, HOME, driver=a_link(name))
    assert read(tmp_path).driver == "bad\\xff\x1b"


def test_unknown_file_text_is_escaped_in_the_finding(tmp_path):
    add(tmp_path, HOME, vendor="\x1b[31m")
    (finding,) = read(tmp_path).findings
    assert "\x1b" not in finding.text


def test_config_is_what_decoders_miss_when_absent(tmp_path):
    add(tmp_path, HOME, config=None)
    raw = read(tmp_path)
    assert raw.config is None
    assert raw.findings == ()  # pci says no-config, once
    assert not CONFIG.needed
