import json
from xml.etree import ElementTree as ET

import pytest

from pcipt.cli.main import main
from pcipt.firmware.acpi.build_table import Header, build_table
from tests.firmware.reserved_tables import ivhd, ivrs, select
from tests.machines import config
from tests.pvh import IO_APIC, mcfg, native_madt
from tests.trees import EMPTY_LINE, add

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-3fffffff : System RAM
  01000000-01dfffff : Kernel code
40000000-7ffd7fff : Unusable memory
7ffd8000-7fffffff : Reserved
80000000-afffffff : PCI Bus 0000:00
b0000000-bfffffff : PCI MMCONFIG 0000 [bus 00-ff]
  b0000000-bfffffff : Reserved
feb00000-febfffff : PCI Bus 0000:01
"""
BAR = "0x00000000feb00000 0x00000000feb1ffff 0x0000000000040200\n"
RMRR_AT = 0x7FFF_0000
SCOPE = bytes([1, 8, 0, 0, 0, 0, 3, 0])
RMRR = (
    bytes([1, 0, 32, 0, 0, 0, 0, 0]) + RMRR_AT.to_bytes(8, "little") + (RMRR_AT + 0xFFF).to_bytes(8, "little")
)
DMAR = build_table(Header("DMAR", 1), bytes(12) + RMRR + SCOPE)
IVRS = ivrs(units=[ivhd(select(0x18))])


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "machine"
    add(root, "pci0000:00/0000:00:03.0", config=config(size=256, bars=(0xFEB0_0000,), command=2),
        resource=BAR + 12 * EMPTY_LINE)  # fmt: skip
    (root / "proc").mkdir()
    (root / "proc/iomem").write_text(IOMEM)
    home = root / "sys/firmware/acpi/tables"
    home.mkdir(parents=True)
    (home / "MCFG").write_bytes(mcfg())
    (home / "APIC").write_bytes(native_madt(IO_APIC))
    (home / "FACP").write_bytes(b"not looked at here")
    return root


def put(home, name, text):
    home.mkdir()
    (home / name).write_text(text)


def run(capsys, *arguments):
    code = main(["pvh", "layout", *map(str, arguments)])
    return code, capsys.readouterr()


def ranges(capsys, *arguments):
    code, said = run(capsys, *arguments, "--json")
    answer = json.loads(said.out)
    return code, answer, {r["start"]: (r["size"], r["treatment"]) for r in answer["ranges"]}


def test_the_layout_of_a_recorded_machine(root, capsys):
    code, answer, found = ranges(capsys, "--root", root)
    assert code == 0, answer["findings"]
    assert answer["source"] == "proc/iomem"
    expected = {
        "0x0": (0x1000, "identity"), "0x1000": (0x9EC00, "ram"), "0x9fc00": (0x6_0400, "identity"),
        "0x100000": (0x3FF0_0000, "ram"), "0x40000000": (0x3FFD_8000, "withheld"),
        "0x7ffd8000": (0x2_8000, "identity"), "0x80000000": (0x3000_0000, "hole"),
        "0xb0000000": (0x1000_0000, "trapped"), "0xfeb00000": (0x2_0000, "identity"),
        "0xfec00000": (0x1000, "emulated"), "0xfee00000": (0x1000, "emulated"),
        "0xfee01000": (0xF_F000, "withheld"),
    }  # fmt: skip
    assert {start: found.get(start) for start in expected} == expected


def test_it_is_a_table_people_can_read(root, capsys):
    code, said = run(capsys, "--root", root)
    lines = said.out.splitlines()
    assert code == 0
    assert lines[0].split()[:4] == ["0000000000-0000000fff", "4", "KiB", "identity"]
    assert any("0000:00:03.0 BAR 0" in line for line in lines)
    assert lines[-1] == "(memory map: proc/iomem)"


@pytest.mark.parametrize("driver_there", [True, False])
def test_reserved_regions_are_gone_with_their_last_device(driver_there, root, tmp_path, capsys):
    (tmp_path / "DMAR").write_bytes(DMAR)
    if not driver_there:
        (root / "sys/bus/pci/devices/0000:00:03.0").unlink()
    _, _, found = ranges(capsys, "--root", root, "--table", tmp_path / "DMAR")
    assert found[hex(RMRR_AT)] == (0x1000, "identity" if driver_there else "withheld")


def test_the_firmwares_own_map_is_preferred(root, capsys):
    for number, (start, last, name) in enumerate(
        [(0, 0x9FFFF, "System RAM"), (0x10_0000, 0x1F_FFFF, "System RAM")]
    ):
        home = root / f"sys/firmware/memmap/{number}"
        home.mkdir(parents=True)
        for file, text in (("start", hex(start)), ("end", hex(last)), ("type", name)):
            (home / file).write_text(f"{text}\n")
    _, answer, found = ranges(capsys, "--root", root)
    assert answer["source"] == "sys/firmware/memmap"
    assert found["0x100000"] == (0x10_0000, "ram")
    assert "0x40000000" not in found


def test_a_drawing(root, tmp_path, capsys):
    code, said = run(capsys, "--root", root, "--svg", tmp_path / "x.svg")
    assert code == 0
    text = (tmp_path / "x.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    assert "0000:00:03.0 BAR 0" in text
    assert said.out.splitlines()[-1] == "(memory map: proc/iomem)"


def test_a_drawing_that_cannot_be_written(root, tmp_path, capsys):
    assert run(capsys, "--root", root, "--svg", tmp_path / "absent" / "x.svg")[0] == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda root: (root / "sys/firmware/acpi/tables").rename(root / "gone"), "no-tables"),
        (lambda root: (root / "sys/bus/pci/devices").rename(root / "gone"), "no-functions"),
        (lambda root: (root / "proc/iomem").write_text(IOMEM + "garbage\n"), "iomem-malformed"),
        (lambda root: put(root / "sys/hypervisor", "guest_type", "PV\n"), "not-pvh"),
    ],
)  # fmt: skip
def test_what_is_missing_is_a_finding(change, code, root, capsys):
    change(root)
    status, answer, _ = ranges(capsys, "--root", root)
    assert status == 4
    assert [finding["code"] for finding in answer["findings"]] == [code]


@pytest.mark.parametrize(
    "content", [None, "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n"]
)
def test_without_a_memory_map_there_is_no_layout(content, root, capsys):
    (root / "proc/iomem").unlink()
    if content is not None:
        (root / "proc/iomem").write_text(content)
    code, said = run(capsys, "--root", root)
    assert (code, said.out) == (1, "")
    assert "proc/iomem" in said.err


def test_damage_of_tables_is_told_with_its_offset(root, capsys):
    table = root / "sys/firmware/acpi/tables/MCFG"
    table.write_bytes(table.read_bytes()[:-4])
    _, answer, _ = ranges(capsys, "--root", root)
    assert {finding["code"] for finding in answer["findings"]} == {"acpi-length", "acpi-entry"}
    assert all(finding["text"].startswith("MCFG: at 0x") for finding in answer["findings"])


@pytest.mark.parametrize(("options", "treatment"), [("", "identity"), ("dom0-iommu=no-map-reserved", "hole")])
@pytest.mark.parametrize(("release", "rest"), [(("4", "17", ".7"), "hole"), (("4", "20", ".1"), "identity")])
def test_a_bar_over_reserved_memory(release, rest, options, treatment, root, capsys):
    """The first half of the BAR lies over reserved memory."""
    (root / "proc/iomem").write_text(f"{IOMEM}feb00000-feb0ffff : Reserved\n")
    home = root / "sys/hypervisor/version"
    home.mkdir(parents=True)
    for name, text in zip(("major", "minor", "extra"), release, strict=True):
        (home / name).write_text(f"{text}\n")
    _, answer, _ = ranges(capsys, "--root", root, "--xen-options", options)
    found = {}
    for each in answer["ranges"]:
        for address in (0xFEB0_0000, 0xFEB1_0000):
            if int(each["start"], 16) <= address <= int(each["last"], 16):
                found[address] = each["treatment"]
    assert found == {0xFEB0_0000: treatment, 0xFEB1_0000: rest}


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(
    ("table", "option"),
    [(DMAR, "rmrr"), (IVRS, "ivmd")],
    ids=["VT-d", "AMD-Vi"],
)  # fmt: skip
def test_regions_that_xens_command_line_adds(table, option, recorded, root, tmp_path, capsys):
    """The first region is of a function that is there, the second of one that is not."""
    (tmp_path / "table").write_bytes(table)
    line = f"dom0=pvh {option}=10000-10001=0:3.0;11000=0:7.0 {option}=20000=perhaps"
    if recorded:
        (root / "xen").mkdir()
        (root / "xen/info").write_text(f"xen_commandline : {line}\n")
    given = [] if recorded else ["--xen-options", line]
    _, answer, found = ranges(capsys, "--root", root, "--table", tmp_path / "table", *given)
    assert (found.get("0x10000000"), found.get("0x11000000")) == (
        (0x2000, "identity"), (0x1000, "withheld")
    )  # fmt: skip
    (why,) = [each["text"] for each in answer["findings"] if each["code"] == "region-option"]
    assert why.startswith(f"{option}=20000=perhaps")


def test_a_recorded_command_line_counts_unless_another_is_given(root, capsys):
    (root / "xen").mkdir()
    (root / "xen/info").write_text("xen_commandline : dom0=pvh dom0-iommu=no-map-reserved\n")
    for given, treatment in (([], "hole"), (["--xen-options", "dom0=pvh"], "identity")):
        _, _, found = ranges(capsys, "--root", root, *given)
        assert found["0x7ffd8000"][1] == treatment
