import io
import json
import struct
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.machines import config
from tests.pci.spaces import extended_list, space, standard_list
from tests.trees import DATA, EMPTY_LINE, REPO, a_link, add

PORT = "pci0000:00/0000:00:1c.0"


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments)])
    return code, out.getvalue()


def msix_config():
    data = bytearray(config(size=256, command=2, bars=(0xFEB0_000C, 0x1)))
    data[6], data[0x34] = 0x10, 0x40
    struct.pack_into("<BBHII", data, 0x40, 0x11, 0, 0x8003, 0x2000, 0x3000)
    return bytes(data)


@pytest.fixture
def machine(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:00.0")
    add(tmp_path, PORT, config=config(header=1, buses=(0, 2, 3)), secondary_bus_number="2\n")
    add(
        tmp_path,
        f"{PORT}/0000:02:00.0",
        config=msix_config(),
        resource="0x00000001fec00000 0x00000001fec03fff 0x000000000014220c\n" + 12 * EMPTY_LINE,
        driver=a_link("../../../../bus/pci/drivers/bad\x1b[2J"),
        subsystem_vendor="0x1028\n",
        subsystem_device="0x0518\n",
        numa_node="1\n",
    )
    add(tmp_path, f"{PORT}/0000:02:00.1")
    add(tmp_path, "pci10000:00/10000:00:02.0")
    return tmp_path


NOTATIONS = [
    # what may be typed for 0000:02:00.0
    "0000:02:00.0",
    "02:00.0",
    "2:0.0",
    "(0000:02:00.0)",
    "02_00.0",
    "dom0:02_00.0",
    "0000_02_00.0",
    "pci_0000_02_00_0",
    "00_1c.0-00_00.0",  # the PCI path
    "0000_00_1c.0-00_00.0",
    "pci@0000:02:00.0",
    "PCI:2:0:0",
    "/sys/bus/pci/devices/0000:02:00.0",
    "02:00.0@5,permissive=1",
]


@pytest.mark.parametrize("text", NOTATIONS)
def test_every_notation_finds_the_function(machine, text):
    code, out = run("show", text, "--root", machine, "--json")
    assert code == 0
    assert json.loads(out)["device"]["sbdf"] == "0000:02:00.0"
    listed = run("list", "-s", text, "--root", machine)[1].splitlines()
    assert "0000:02:00.0" in [line.split()[0] for line in listed]


def test_list_takes_a_path(machine):
    code, out = run("list", "-s", "00_1c.0-00_00.0", "--root", machine)
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["0000:02:00.0"])


#  what fits no function -> exit code of `list -s`, what is said
UNFIT = [
    ("02:00:0", 6, "did you mean 0000:02:00.0?"),  # a colon for the point
    ("0000:02:00:1", 2, "did you mean 0000:02:00.1?"),
    ("02:00.5", 6, "did you mean 0000:02:00.1?"),
    ("00_1c.0-00_05.0", 6, "pcipt: no function 00_1c.0-00_05.0 on this machine; `pcipt list"),
    ("77:00.0", 6, "pcipt: no function 77:00.0 on this machine; `pcipt list"),
    ("0001:02:00", 6, "did you mean 0000:02:00.0?"),
    ("77:", 0, "note: no function fits 77:\n"),  # a set may be empty, as for lspci
    ("*:1e.*", 0, "note: no function fits *:1e.*\n"),
    ("1e.5", 0, "note: no function fits 1e.5\n"),  # on any bus
    ("0001:", 0, "note: no function fits 0001:\n"),
]


@pytest.mark.parametrize(("text", "expected", "said"), UNFIT)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_filter_that_fits_nothing_is_told(machine, text, expected, said, form, capsys):
    code, out = run("list", "-s", text, "--root", machine, *form)
    assert code == expected
    assert said in capsys.readouterr().err
    assert out == ('{"version": 1, "devices": []}\n' if form and not code else "")


ABSENT = [
    ("00:1c.1", "0000:00:1c.0"),
    ("02:00.2", "0000:02:00.1"),
    ("02:00:1", "0000:02:00.1"),  # a colon for the point
    ("5:0.0", None),  # no function is on that bus
    ("0001:00:00.0", "0000:00:00.0"),
    ("00_1c.0-00_05.0", None),
    ("00_1d.0-00_00.0", None),  # not even its first hop
    ("09:00.*", None),
]


@pytest.mark.parametrize(("text", "nearest"), ABSENT)
def test_what_is_absent_is_told_with_the_nearest(machine, text, nearest, capsys):
    assert main(["show", text, "--root", str(machine)]) == 6
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pcipt: no function ")
    assert (f"did you mean {nearest}?" in captured.err) == (nearest is not None)


MALFORMED = [
    "",
    "x",
    "00:82.0",
    "00:1f.9",
    "1.2.3",
    "00:00.0 ",
    "00_1c.0-",
    "-00_00.0",
    "\x1b[2J",
]


@pytest.mark.parametrize("text", MALFORMED)
def test_what_is_malformed_is_a_usage_error(machine, text, capsys):
    assert main(["show", "--root", str(machine), "--", text]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pcipt: malformed address")
    assert "\x1b" not in captured.err


SETS = [
    ("02:00", ["0000:02:00.0", "0000:02:00.1"]),
    ("02:", ["0000:02:00.0", "0000:02:00.1"]),
    ("02:00.*", ["0000:02:00.0", "0000:02:00.1"]),
    (".1", ["0000:02:00.1"]),
    ("*", ["0000:00:00.0", "0000:00:1c.0", "0000:02:00.0", "0000:02:00.1", "10000:00:02.0"]),
]


@pytest.mark.parametrize(("text", "named"), SETS)
def test_a_set_is_shown_checked_and_listed_alike(machine, text, named):
    shown = json.loads(run("show", text, "--root", machine, "--json")[1])["devices"]
    listed = json.loads(run("list", "-s", text, "--root", machine, "--json")[1])["devices"]
    checked = json.loads(run("check", text, "--root", machine, "--json")[1])["functions"]
    assert [each["sbdf"] for each in shown] == named
    assert {each["sbdf"] for each in checked} == set(named)  # in the order of the verdicts
    assert [{key: value for key, value in each.items() if key != "details"} for each in shown] == listed
    words = run("show", text, "-n", "--root", machine)[1].split("\n\n")
    assert [each.split()[0] for each in words] == named


def test_everything_is_shown_in_words(machine):
    code, out = run("show", "-n", "02:00.0", "--root", machine)
    assert code == 0
    step = (
        "                -> `echo 1 > /sys/bus/pci/devices/0000:02:00.0/remove`, then `echo 1 > "
        "/sys/bus/pci/rescan` (this stops its driver)"
    )
    drift = (
        "    bar-drift:  BAR 0 decodes at 0x1feb00000, but Linux has 0x1fec00000 for it: the driver uses "
        "wrong addresses; unbind the driver, remove the function in sysfs and rescan its bus, or write "
        "Linux's address into the register"
    )
    assert out.splitlines() == [
        "0000:02:00.0 0200: 8086:10d3",
        "    Path:       00_1c.0-00_00.0",
        "    Behind:     0000:00:1c.0",
        "    Subsystem:  1028:0518",
        "    Driver:     bad\\x1b[2J",
        "    NUMA node:  1",
        "    Command:    I/O- Mem+ BusMaster- (0x0002)",
        "    Header:     endpoint",
        "  Device:",
        "    Reset:  FLR-, of the function alone: none",
        "  BARs:",
        "    BAR 0:  0x1feb00000  size 16K  memory 64-bit prefetchable  decoding",
        "  Capabilities:",
        "    [0x40]  MSI-X (0x11)",
        "  Structures:",
        "    MSI-X:  4 vectors, enabled, table BAR 0 + 0x2000 (64 bytes), PBA BAR 0 + 0x3000 (8 bytes)",
        "  MSI-X at 0x40:",
        "    MSI-X:         Enable+, Count 4, Masked-",
        "    Vector table:  BAR 0, offset 0x00002000",
        "    PBA:           BAR 0, offset 0x00003000",
        "  Findings:",
        drift,
        step,
    ]


def test_a_bridge_shows_its_buses(machine):
    _, out = run("show", "1c.0", "--root", machine)
    assert (
        "  Bridge:\n    Bus:     primary=00, secondary=02, subordinate=03\n"
        "    Window:  I/O ports, closed\n"
        "    Window:  memory, closed\n"
        "    Window:  prefetchable memory, closed\n"
    ) in out


def test_a_segment_that_xen_cannot_name_is_explained(machine):
    _, out = run("show", "10000:00:02.0", "--root", machine)
    assert "  Findings:\n    segment-not-in-xen:  " in out


VFS = "SR-IOV: 0 of 64 VFs disabled (initially 64), offset 32, stride 1, device a826, memory off, ARI on"
DUMPS = [
    # recording, function, a line that must be there
    ("cap-phy32", "2e:00.0", "VF BAR 0: 0x88408000 size unknown memory 64-bit not decoding"),
    ("cap-phy32", "2e:00.0", VFS),
    ("cap-rebar", "09:00.0", "Resizable BAR 0: 256M of 256M 512M 1G 2G 4G"),
    ("cap-rebar", "09:00.0", "ROM BAR: 0xfe840000 size unknown memory 32-bit not decoding"),
    ("cap-rebar", "09:00.0", "[0x200] Resizable BAR (0x15 v1)"),
    ("bridge-ctl-vga16", "1c.0", "Window: memory 0xf1100000-0xf11fffff, size 1M"),
    ("bridge-ctl-vga16", "1c.0", "PCI Express: root-port, with a slot, ARI forwarding off"),
    ("tree-asus-p6t6", "00_03.0-00_00.0-00_00.0-00_00.0", "Behind: 0000:03:00.0"),
    ("tree-asus-p6t6", "02:00.0", "Link: 5GT/s x16, at most 5GT/s x16"),
    ("tree-asus-p6t6", "02:00.0", "Slot: number 2 in the port above"),
    ("tree-asus-p6t6", "02:00.0", "Power: D0, NoSoftRst-: D3hot resets it"),
    ("cap-dvsec-cxl", "7f:00.0", "Reset: FLR+, of the function alone: flr"),
    ("cap-dvsec-cxl", "7f:00.0", "Kind: ID 0x0008, Name CXL register locator"),
    ("cap-vendor-virtio", "00:09.0", "Place: BAR 2, offset 0x00003000, size 0x00040000"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "line"), DUMPS)
def test_a_function_of_a_dump_is_shown_in_full(name, text, line):
    path = DATA / "pciutils" / name
    if not path.exists():
        pytest.skip("the recordings of other projects are not here")
    code, out = run("show", text, "--dump", path)
    assert code == 0
    assert line in [" ".join(row.split()) for row in out.splitlines()]  # the columns' widths are the table's
    assert ("Driver:" in out) == ("Kernel driver in use" in path.read_text())  # only its words tell


def test_show_and_list_agree(recorded):
    devices = json.loads(run("list", "--root", recorded, "--json")[1])["devices"]
    for device in devices[:: max(1, len(devices) // 9)]:
        for text in (device["sbdf"], device["path"]):
            shown = json.loads(run("show", text, "--root", recorded, "--json")[1])
            details = shown["device"].pop("details")
            assert shown == {"version": 1, "device": device, "unassigned": []}
            assert [each["offset"] for each in details["capabilities"]] == [
                each["offset"] for each in device["capabilities"]
            ]


#  a slip that makes it malformed, what it may have been meant to be; beside the wrong field
SLIPS = [
    ("02:00.9", "function 9 is above 7 (did you mean 0000:02:00.0?)"),
    ("0000:2g:00.1", "(did you mean 0000:02:00.1?)"),  # the only one with that device and function
    ("0000:2g:00.0", "bus '2g' is not hexadecimal; `pcipt list"),
    ("02:00,1", "(did you mean 0000:02:00.1?)"),
    ("10000:00:22.0", "device 22 is above 1f; `pcipt list"),
    ("xyz", "device 'xyz' is not hexadecimal; `pcipt list"),  # nothing looks like it
    ("f" * 9000, "is above 1f; `pcipt list"),
]


@pytest.mark.parametrize("command", ["show", "check"])
@pytest.mark.parametrize(("typed", "words"), SLIPS)
def test_a_slip_is_told_with_the_nearest_function(machine, capsys, command, typed, words):
    assert main([command, typed, "--root", str(machine)]) == 2
    assert words in capsys.readouterr().err


def test_a_slip_is_told_where_no_machine_can_be_read(tmp_path, capsys):
    assert main(["show", "02:00.9", "--root", str(tmp_path / "missing")]) == 2
    assert "function 9 is above 7; `pcipt list" in capsys.readouterr().err


@pytest.fixture
def described(tmp_path):
    """A machine of which the firmware and Linux tell what there is to tell."""
    home = add(
        tmp_path,
        "pci0000:00/0000:00:03.0",
        {"class": "0x010802\n"},
        config=msix_config(),
        reset_method="flr bus\n",
        irq="16\n",
        label="Onboard LAN\x1b[2J\n",
        acpi_index="1\n",
        index="7\n",
        power_state="D0\n",
        current_link_speed="2.5 GT/s PCIe\n",
        current_link_width="1\n",
        max_link_speed="16.0 GT/s PCIe\n",
        max_link_width="8\n",
        aer_dev_correctable="RxErr 3\nBadTLP 0\nTOTAL_ERR_COR 3\n",
        aer_dev_fatal="Undefined 0\nTOTAL_ERR_FATAL 0\n",
        iommu_group=a_link("../../../kernel/iommu_groups/7"),
    )
    data = bytearray((home / "config").read_bytes())
    data[0x3D], data[0x3C] = 1, 11
    (home / "config").write_bytes(data)
    (tmp_path / "sys/bus/pci/slots/5-1").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/slots/5-1/address").write_text("0000:00:03\n")
    (tmp_path / "sys/bus/pci/slots/6").mkdir()
    (tmp_path / "sys/bus/pci/slots/6/address").write_text("0000:00:04\n")
    return tmp_path


def test_what_the_firmware_and_linux_tell_is_shown(described):
    code, out = run("show", "-n", "00:03.0", "--root", described)
    assert code == 0
    told = [" ".join(row.split()) for row in out.splitlines()]
    start = told.index("Device:")
    assert told[start + 1 : told.index("BARs:")] == [
        "Interface: [02]",
        "IOMMU group: 7",
        "Slot: 5-1",
        "Label: Onboard LAN\\x1b[2J, ACPI index 1",
        "Interrupt: pin A, IRQ 16",
        "Link: 2.5GT/s x1, at most 16GT/s x8",
        "Power: D0",
        "Reset: FLR-, of the function alone: none",
        "Reset by Linux: flr bus",
        "Errors, correctable: RxErr 3",
        "Errors, fatal: none",
    ]


def test_text_and_json_of_the_details_have_equal_values(described):
    details = json.loads(run("show", "00:03.0", "--root", described, "--json")[1])["device"]["details"]
    capabilities = details.pop("capabilities")
    assert details.pop("interface_name") in (None, "NVM Express")
    assert details == {
        "subsystem_name": None,
        "serial": None,
        "host_bridge": None,
        "iommu_unit": None,
        "iommu_group": 7,
        "slot": "5-1",
        "slot_number": None,
        "label": "Onboard LAN\x1b[2J",
        "index": 1,
        "index_by_acpi": True,
        "interrupt_pin": "A",
        "irq": 16,
        "link": {"speed": 2500, "width": 1, "max_speed": 16_000, "max_width": 8},
        "power_state": "D0",
        "no_soft_reset": None,
        "flr": False,
        "own_resets": [],
        "reset_methods": ["flr", "bus"],
        "errors": {"correctable": {"RxErr": 3}, "fatal": {}},
    }
    assert capabilities == [
        {
            "id": "0x11",
            "offset": "0x40",
            "name": "MSI-X",
            "version": None,
            "registers": {
                "control": {"enable": True, "vectors": 4, "masked": False},
                "table": {"bar": 0, "offset": "0x00002000"},
                "pba": {"bar": 0, "offset": "0x00003000"},
            },
        }
    ]


@pytest.mark.parametrize("user", [0, 1000])
def test_serial_numbers_are_shown_to_root_only(tmp_path, monkeypatch, user):
    monkeypatch.setattr("os.geteuid", lambda: user)
    serial = extended_list((0x100, 3, {4: (4, 0xFF304CD8), 8: (4, 0x001B21FF)}))
    add(
        tmp_path, "pci0000:00/0000:00:03.0", config=space(standard_list((0x40, 0x10, {})) | serial, size=4096)
    )
    (tmp_path / "sys/devices/pci0000:00/firmware_node").mkdir()
    (tmp_path / "sys/devices/pci0000:00/firmware_node/path").write_text("\\_SB_.PCI0\n")
    text = run("show", "00:03.0", "--root", tmp_path)[1]
    details = json.loads(run("show", "00:03.0", "--root", tmp_path, "--json")[1])["device"]["details"]
    number = "00-1b-21-ff-ff-30-4c-d8" if user == 0 else None
    assert (details["serial"], details["host_bridge"]) == (number, "\\_SB_.PCI0")
    assert ("Serial number:" in text) == (user == 0) == ("00-1b-21" in text)
    assert "\\_SB_.PCI0" in text


def test_vital_product_data_are_named_and_never_read(tmp_path):
    data = bytearray(msix_config())
    data[0x40] = 0x03

    def forbidden(path):
        path.mkdir()  # a file that is opened for reading would be an error here

    add(tmp_path, "pci0000:00/0000:00:03.0", config=bytes(data), vpd=forbidden)
    code, out = run("show", "00:03.0", "--root", tmp_path)
    assert code == 0
    assert "    [0x40]  Vital Product Data (0x03), never read\n" in out
    assert "Findings" not in out or "vpd" not in out


@pytest.mark.parametrize(
    ("name", "unit"), [("lab-pv", "DRHD at 0xfed90000"), ("lab-pvh", None)]
)  # a PVH dom0 cannot see the table
def test_the_iommu_unit_is_that_of_the_table(name, unit):
    root = REPO / "fixtures/sysfs" / name
    details = json.loads(run("show", "00:03.0", "--root", root, "--json")[1])["device"]["details"]
    assert details["iommu_unit"] == unit
