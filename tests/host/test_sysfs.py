import os
import shutil

import pytest

from pcipt.errors import InputError
from pcipt.host.files import Depth
from pcipt.host.sysfs import SysfsReader, read_addresses, read_function, read_machine
from pcipt.pci import BarKind, Sbdf, decode_machine, parse_sbdf
from tests import lspci_text
from tests.machines import config
from tests.trees import FILES, a_directory, a_fifo, a_link, add, put

ROOT_PORT = "pci0000:00/0000:00:1c.0"
pytestmark = pytest.mark.usefixtures("way")


def only(root, **more):
    (raw,) = read_machine(str(root), **more)
    return raw


def codes(raw):
    return [finding.code for finding in raw.findings]


NESTING = [
    # directory below sys/devices, parent, root bus: how Linux names what is above
    ("pci0000:00/0000:00:1f.2", None, 0),
    ("pci0000:40/0000:40:03.0", None, 0x40),
    (f"{ROOT_PORT}/0000:01:00.0", "0000:00:1c.0", None),
    (f"{ROOT_PORT}/0000:01:00.0/0000:02:04.0/0000:03:00.7", "0000:02:04.0", None),
    # VMD: a segment of its own below a function of segment 0
    ("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", None, 0xE0),
    ("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0", "10000:e0:06.0", None),
    ("platform/soc/fd500000.pcie/pci0000:00/0000:00:00.0", None, 0),  # a board without ACPI
    ("LNXSYSTM:00/LNXSYBUS:00/PNP0A03:00/device:07/VMBUS:01/4c/pci7cfc:00/7cfc:00:02.0", None, 0),  # Hyper-V
    ("pci-0/pci0000:00/0000:00:00.0", None, 0),  # Xen's pcifront
    # what is above is neither bridge nor root bus: bus numbers must tell
    ("platform/thing/0000:00:00.0", None, None),
    ("pci0000:00/0000:00:0e.0/10000:e1:00.0", None, None),  # the segments differ
]


@pytest.mark.parametrize(("home", "parent", "root_bus"), NESTING)
def test_the_directories_above_tell_bridge_or_root_bus(tmp_path, home, parent, root_bus):
    add(tmp_path, home)
    raw = only(tmp_path)
    assert str(raw.sbdf) == home.rpartition("/")[2]
    assert raw.parent == (parse_sbdf(parent) if parent else None)
    assert raw.root_bus == root_bus
    assert raw.findings == ()


@pytest.mark.parametrize(
    ("home", "controller"),
    [
        ("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0", "00:0e.0"),
        ("pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0", None),  # behind a bridge
        ("pci10001:80/10001:80:05.0", None),
        ("pci0000:00/0000:00:0e.0", None),
    ],
)
def test_the_controller_of_a_segment_is_above_its_root_bus(tmp_path, home, controller):
    add(tmp_path, home)
    assert only(tmp_path).controller == (parse_sbdf(controller) if controller else None)


def test_a_tree_without_links_has_its_functions_right_there(tmp_path):
    home = tmp_path / "sys/bus/pci/devices/0004:05:00.0"
    home.mkdir(parents=True)
    for name, content in FILES.items():
        put(home / name, content)
    raw = only(tmp_path)
    assert raw.ids.vendor == 0x8086
    assert (raw.parent, raw.root_bus) == (None, None)
    assert raw.findings == ()


@pytest.mark.parametrize("name", ["power", "0000:00:1f.8", "0000:00:1F.2", "new\nline", "\x1b[2J", "..."])
def test_a_name_that_is_no_address_is_no_function(tmp_path, name):
    add(tmp_path, "pci0000:00/0000:00:1f.2")
    put(tmp_path / "sys/bus/pci/devices" / name, a_directory)
    assert read_addresses(str(tmp_path)) == [Sbdf(0, 0, 0x1F, 2)]


ANOTHER = a_link("../../../devices/pci0000:00/0000:00:02.0")  # leads to another function
ENTRIES = [
    # what stands in sys/bus/pci/devices, code of the finding
    (a_link("../../../devices/pci0000:00/0000:00:1f.2"), "link-dangling"),
    (a_link("/etc"), "link-outside"),
    (a_link("../../../../../../etc"), "link-outside"),
    (a_link("../../../../../outside"), "link-outside"),
    (a_link("0000:00:1f.2"), "link-loop"),  # itself
    (a_link("../devices/0000:00:1f.2"), "link-loop"),
    ("a file\n", "link-broken"),
    (a_fifo, "link-broken"),
    (ANOTHER, "link-mismatch"),
    (a_link("."), "link-mismatch"),
    (a_link("../../../.."), "link-mismatch"),  # leads to the root of the tree
]


@pytest.mark.parametrize(("entry", "code"), ENTRIES)
def test_an_entry_that_leads_astray_is_a_finding(tmp_path, entry, code):
    root = tmp_path / "root"
    add(root, "pci0000:00/0000:00:02.0")
    outside = tmp_path / "outside"
    outside.mkdir()
    put(outside / "config", config())
    put(root / "sys/bus/pci/devices/0000:00:1f.2", entry)
    good, odd = sorted(read_machine(str(root)), key=lambda raw: raw.sbdf)
    assert good.findings == ()
    assert odd.sbdf == Sbdf(0, 0, 0x1F, 2)
    assert codes(odd)[0] == code
    assert odd.config is None or entry is ANOTHER


def test_links_on_the_way_are_followed_within_the_tree(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:1f.2")
    os.rename(tmp_path / "sys/devices", tmp_path / "sys/moved")
    (tmp_path / "sys/devices").symlink_to("moved")
    os.rename(tmp_path / "sys/bus/pci", tmp_path / "sys/bus/real")
    (tmp_path / "sys/bus/pci").symlink_to("real")
    raw = only(tmp_path)
    assert (raw.root_bus, raw.findings) == (0, ())


def test_a_directory_above_that_is_a_link_outside_is_refused(tmp_path):
    root = tmp_path / "root"
    add(root, "pci0000:00/0000:00:1f.2")
    os.rename(root / "sys/devices/pci0000:00", tmp_path / "outside")
    (root / "sys/devices/pci0000:00").symlink_to("../../../outside")
    assert codes(only(root)) == ["link-outside"]


def test_one_address_with_two_directories_is_told(tmp_path):
    add(tmp_path, f"{ROOT_PORT}")
    add(tmp_path, "pci0000:00/0000:00:1d.0")
    add(tmp_path, "pci0000:00/0000:00:1d.0/0000:00:1c.0/0000:01:00.0")  # as if 1c.0 were below 1d.0
    found = {str(raw.sbdf): codes(raw) for raw in read_machine(str(tmp_path))}
    assert found == {"0000:00:1c.0": [], "0000:00:1d.0": [], "0000:01:00.0": ["two-places"]}


MISSING = [
    lambda _: None,  # nothing at all
    lambda root: (root / "sys").mkdir(),
    lambda root: (root / "sys/bus/pci").mkdir(parents=True),
    lambda root: ((root / "sys/bus/pci").mkdir(parents=True), put(root / "sys/bus/pci/devices", "")),
    lambda root: (root / "sys").symlink_to("/sys"),  # outside, although a machine is there
]


@pytest.mark.parametrize("make", MISSING)
def test_a_root_that_holds_no_machine_is_an_input_error(tmp_path, make):
    make(tmp_path)
    with pytest.raises(InputError) as caught:
        read_machine(str(tmp_path))
    assert caught.value.path == str(tmp_path / "sys/bus/pci/devices")


def test_a_machine_without_functions_is_no_error(tmp_path):
    (tmp_path / "sys/bus/pci/devices").mkdir(parents=True)
    assert read_machine(str(tmp_path)) == []


def test_more_entries_than_functions_can_be_is_an_input_error(tmp_path):
    for number in range(5):
        add(tmp_path, f"pci0000:00/0000:00:{number:02x}.0")
    with SysfsReader(str(tmp_path), limit=5) as reader:
        assert len(reader.addresses()) == 5
    with SysfsReader(str(tmp_path), limit=4) as reader, pytest.raises(InputError) as caught:
        reader.addresses()
    assert "more than 4" in caught.value.why


def test_addresses_come_in_order_of_their_numbers(tmp_path):
    homes = [
        "pci10000:00/10000:00:00.0",
        "pci0000:ff/0000:ff:00.0",
        "pci0000:00/0000:00:1f.2",
        "pcia000:00/a000:00:00.0",
    ]
    for home in homes:
        add(tmp_path, home)
    shown = [str(sbdf) for sbdf in read_addresses(str(tmp_path))]
    assert shown == ["0000:00:1f.2", "0000:ff:00.0", "a000:00:00.0", "10000:00:00.0"]


def test_a_function_that_vanishes_before_it_is_read_is_left_out(tmp_path):
    home = add(tmp_path, "pci0000:00/0000:00:1f.2")
    add(tmp_path, "pci0000:00/0000:00:02.0")
    with SysfsReader(str(tmp_path)) as reader:
        listed = reader.addresses()
        (tmp_path / "sys/bus/pci/devices/0000:00:1f.2").unlink()
        shutil.rmtree(home)
        read = reader.read(listed, Depth.FULL)
    assert len(listed) == 2
    assert [str(raw.sbdf) for raw in read] == ["0000:00:02.0"]


def test_a_function_that_vanishes_between_its_entry_and_its_directory_is_left_out(tmp_path):
    home = add(tmp_path, "pci0000:00/0000:00:1f.2")

    def vanishing():
        yield Sbdf(0, 0, 0x1F, 2)  # its entry is read before the next is asked for
        (tmp_path / "sys/bus/pci/devices/0000:00:1f.2").unlink()
        shutil.rmtree(home)

    with SysfsReader(str(tmp_path)) as reader:
        assert reader.read(vanishing(), Depth.FULL) == []


def test_one_function_is_read_alone_or_not_there(tmp_path):
    add(tmp_path, f"{ROOT_PORT}/0000:01:00.0")
    raw = read_function(str(tmp_path), Sbdf(0, 1, 0, 0))
    assert raw is not None
    assert raw.parent == Sbdf(0, 0, 0x1C, 0)
    assert read_function(str(tmp_path), Sbdf(0, 1, 0, 1)) is None


@pytest.fixture
def family(tmp_path):
    """Two ports; behind the first a physical and a virtual function."""
    add(tmp_path, ROOT_PORT)
    add(tmp_path, "pci0000:00/0000:00:1d.0")
    add(tmp_path, "pci0000:00/0000:00:1d.0/0000:02:00.0")
    add(tmp_path, f"{ROOT_PORT}/0000:01:00.0")
    add(tmp_path, f"{ROOT_PORT}/0000:01:10.0", physfn=a_link("../0000:01:00.0"))
    return tmp_path


LINEAGE = [
    ("0000:02:00.0", {"0000:00:1d.0", "0000:02:00.0"}),
    (
        "0000:01:10.0",
        {"0000:00:1c.0", "0000:01:00.0", "0000:01:10.0"},
    ),  # the bridge and the physical function
    ("0000:00:1c.0", {"0000:00:1c.0"}),
    ("0000:09:00.0", set()),
]


@pytest.mark.parametrize(("wanted", "expected"), LINEAGE)
def test_what_a_wanted_function_needs_is_read_too(family, wanted, expected):
    raws = read_machine(str(family), wanted=lambda sbdf: str(sbdf) == wanted)
    assert {str(raw.sbdf) for raw in raws} == expected


def test_where_nesting_tells_nothing_everything_is_read(family):
    add(family, "platform/thing/0000:05:00.0")
    raws = read_machine(str(family), wanted=lambda sbdf: sbdf.bus == 5)
    assert len(raws) == 6


def test_no_descriptor_stays_open(family):
    before = len(os.listdir("/proc/self/fd"))
    read_machine(str(family))
    with pytest.raises(InputError):
        read_machine(str(family / "sys"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_live_machine_reads_like_a_recorded_one():
    if not os.path.isdir("/sys/bus/pci/devices"):
        pytest.skip("this machine has no PCI")
    raws = read_machine()
    assert {str(raw.sbdf) for raw in raws} == set(os.listdir("/sys/bus/pci/devices"))
    assert all(raw.ids.vendor is not None for raw in raws)
    assert all(raw.parent is not None or raw.root_bus is not None for raw in raws)


# Recorded machines: what we decode against the kernel's own files and against lspci.


def kernel_number(root, sbdf, name):
    return int((root / "sys/bus/pci/devices" / str(sbdf) / name).read_text(), 16)


def test_recorded_ids_agree_with_the_kernels_files(recorded):
    machine = decode_machine(read_machine(str(recorded)))
    assert machine.functions
    for sbdf, function in machine.functions.items():
        assert function.ids.class_code == kernel_number(recorded, sbdf, "class")
        if (recorded / "sys/bus/pci/devices" / str(sbdf) / "vendor").exists():
            assert function.ids.vendor == kernel_number(recorded, sbdf, "vendor")
            assert function.ids.device == kernel_number(recorded, sbdf, "device")


def kernel_lines(root, sbdf):
    try:
        text = (root / "sys/bus/pci/devices" / str(sbdf) / "resource").read_text()
    except FileNotFoundError:
        return []
    return [tuple(int(part, 16) for part in line.split()) for line in text.splitlines()]


def test_recorded_bars_and_windows_agree_with_the_kernels_lines(recorded):
    machine = decode_machine(read_machine(str(recorded)))
    for sbdf, function in machine.functions.items():
        lines = kernel_lines(recorded, sbdf)
        for bar in function.bars:
            start, end, flags = lines[bar.index]
            if bar.kind is not BarKind.ROM:  # Linux keeps a place for a ROM that is switched off
                assert (bar.address, bar.size) == (start, end - start + 1), (sbdf, bar)
                assert bar.prefetchable == bool(flags & 8)  # the low bits are the register's
        used = {index for index, (_, end, _) in enumerate(lines[:6]) if end}
        assert {bar.index for bar in function.bars if bar.kind is not BarKind.ROM} == used
        if function.bridge is not None:
            # lines 7-12 are SR-IOV's where the kernel has it (17 lines and more)
            windows = {(start, end) for start, end, _ in lines[13 if len(lines) > 16 else 7 :] if end}
            assert {(w.base, w.limit) for w in function.bridge.windows} == windows


@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")
def test_recorded_machines_agree_with_lspci(recorded):
    if not any(recorded.glob("sys/bus/pci/devices/*/vendor")):
        pytest.skip("lspci cannot read a tree without vendor files")
    machine = decode_machine(read_machine(str(recorded)))
    theirs = lspci_text.on_tree(recorded)
    assert set(theirs) == {str(sbdf) for sbdf in machine.functions}
    for sbdf, function in machine.functions.items():
        lspci_text.compare(function, theirs[str(sbdf)], live=True)
