"""`pcipt space`, and what show, check and the tree of a machine say of addresses that are not there."""

import io
import json
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.machines import config
from tests.trees import EMPTY_LINE, REPO, add

PORT = "pci0000:00/0000:00:1c.0"
NIC = f"{PORT}/0000:01:00.0"
LOST = "0x0000000000000000 0x{:016x} 0x{:016x}\n"
LINE = "0x{:016x} 0x{:016x} 0x{:016x}\n"
IOMEM = """00000000-7fffffff : System RAM
80000000-8fffffff : PCI Bus 0000:00
  80000000-801fffff : PCI Bus 0000:01
  88000000-8fffffff : PCI MMCONFIG 0000 [bus 00-7f]
"""


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments)])
    return code, out.getvalue()


def a_port(window=(0xFFF0, 0), lines=17 * EMPTY_LINE):
    data = bytearray(config(header=1, class_code=0x060400, buses=(0, 1, 1), command=7))
    data[0x20:0x24] = window[0].to_bytes(2, "little") + window[1].to_bytes(2, "little")
    return {"config": bytes(data), "class": "0x060400\n", "resource": lines}


@pytest.fixture
def short(tmp_path):
    """A port with a window of 2 MiB, half of it used, and behind it a BAR of 4 MiB without an address."""
    add(tmp_path, "pci0000:00/0000:00:00.0", config=config(class_code=0x060000))
    line = LINE.format(0x8000_0000, 0x801F_FFFF, 0x200)
    add(tmp_path, PORT, a_port((0x8000, 0x8010), 14 * EMPTY_LINE + line + 2 * EMPTY_LINE))
    held = LINE.format(0x8000_0000, 0x800F_FFFF, 0x40200)
    add(tmp_path, NIC, config=config(command=2, bars=(0x8000_0000,)), resource=held + 12 * EMPTY_LINE)
    unset = LOST.format(0x3F_FFFF, 0x2004_0200)
    add(tmp_path, f"{PORT}/0000:01:00.1", config=config(), resource=unset + 12 * EMPTY_LINE)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/iomem").write_text(IOMEM)
    return tmp_path


def test_windows_are_shown_with_what_is_used_and_free(short):
    code, out = run("space", "--root", short)
    assert code == 4
    assert [" ".join(line.split()) for line in out.splitlines()[:7]] == [
        "0000:00 root bus",
        "memory 0x80000000-0x8fffffff size 256M used 130M free 126M largest hole 64M at 0x84000000",
        "0000:00:1c.0 bus 01",
        "I/O closed",
        "memory 0x80000000-0x801fffff size 2M used 1M free 1M largest hole 1M at 0x80100000",
        "prefetchable memory closed",
        "BARs without an address",
    ]
    lost = "0000:01:00.1  BAR 0 (4M memory) has no address: it is unassigned"
    assert out.count(lost) == 1
    assert "the memory window of 0000:00:1c.0 above it has a largest hole of 1M; it is 3M too small" in out
    assert "the memory window of the root bus 0000:00 has enough room" in out
    assert "    -> remove the bridge 0000:00:1c.0 in sysfs" in out


def test_of_one_function_the_windows_above_and_their_users_are_shown(short):
    add(short, "pci0000:00/0000:00:1d.0", {**a_port(), "config": config(header=1, buses=(0, 5, 5))})
    code, out = run("space", "01:00.0", "--root", short)
    assert code == 0  # it has its address
    assert "0000:01:00.0  BAR 0  0x80000000-0x800fffff  1M" in out
    assert "in use by Linux" in out
    assert "0000:00:1d.0" not in out
    assert run("space", "01:00.1", "--root", short)[0] == 4
    assert run("space", "00_1c.0-00_00.0", "--root", short) == (code, out)


def test_space_as_json(short):
    code, out = run("space", "--root", short, "--json")
    shown = json.loads(out)
    assert (code, shown["version"]) == (4, 1)
    root, port = shown["buses"]
    assert (root["bridge"], root["windows"][0]["free"], port["bridge"]) == (None, 126 << 20, "0000:00:1c.0")
    memory = port["windows"][1]
    assert (memory["base"], memory["limit"], memory["used"]) == ("0x80000000", "0x801fffff", 1 << 20)
    assert memory["hole"] == {"start": "0x80100000", "size": 1 << 20}
    (lost,) = shown["unassigned"]
    assert (lost["sbdf"], lost["bar"], lost["size"], lost["short_by"]) == (
        "0000:01:00.1",
        0,
        4 << 20,
        3 << 20,
    )
    assert [each["code"] for each in lost["helps"]] == ["rescan-bridge", "realloc"]


def test_without_iomem_the_root_bus_is_not_known(short):
    (short / "proc/iomem").unlink()
    assert "0000:00  root bus, windows not known\n" in run("space", "--root", short)[1]


def test_a_dump_has_windows_too(tmp_path):
    data = a_port((0x8000, 0x8010))["config"]
    rows = "".join(f"{at:02x}: {data[at : at + 16].hex(' ')}\n" for at in range(0, 64, 16))
    (tmp_path / "dump").write_text(f"00:1c.0 x\n{rows}")
    code, out = run("space", "--dump", tmp_path / "dump")
    assert code == 0
    assert "largest hole 2M at 0x80000000" in out


@pytest.mark.parametrize(("sbdf", "code"), [("05:00.0", 6), ("xx:00.0", 2)])
def test_errors_are_one_line(short, sbdf, code, capsys):
    assert main(["space", sbdf, "--root", str(short)]) == code
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)


def test_show_and_check_tell_the_window(short):
    code, out = run("show", "01:00.1", "--root", short)
    assert code == 0
    assert "BAR 0:  unassigned  size 4M  memory 32-bit  not decoding" in out
    assert "the memory window of 0000:00:1c.0 above it has a largest hole of 1M; it is 3M too small" in out
    assert "pci=realloc" in out
    shown = json.loads(run("show", "01:00.1", "--root", short, "--json")[1])
    assert shown["device"]["bars"][0]["assigned"] is False
    assert shown["unassigned"][0]["short_by"] == 3 << 20
    code, out = run("check", "01:00.1", "--root", short, "--json")
    (report,) = json.loads(out)["functions"]
    reason = next(each for each in report["reasons"] if each["code"] == "bar-unassigned")
    assert (code, report["verdict"], reason["verdict"]) == (4, "refuse", "refuse")
    assert "3M too small" in reason["text"]
    assert "pci=realloc" in reason["cure"]


ROOT = "the memory window of the root bus 0000:00"
LEAST = [
    # a function whose BAR has no address -> what is told of the root bus, what helps the least
    ("01:00.1", f"{ROOT} has enough room", "rescan-bridge", "remove the bridge"),
    ("00:05.0", f"{ROOT} above it has enough room", "rescan", "remove the function"),
]


@pytest.mark.parametrize(("sbdf", "words", "code", "cure"), LEAST)
def test_show_and_check_know_the_windows_of_root_buses_as_space_does(short, sbdf, words, code, cure):
    unset = LOST.format(0x3F_FFFF, 0x2004_0200)
    add(short, "pci0000:00/0000:00:05.0", config=config(), resource=unset + 12 * EMPTY_LINE)
    assert words in run("show", sbdf, "--root", short)[1]
    shown = json.loads(run("show", sbdf, "--root", short, "--json")[1])["unassigned"]
    assert shown[0]["helps"][0]["code"] == code
    assert shown == json.loads(run("space", sbdf, "--root", short, "--json")[1])["unassigned"]
    (report,) = json.loads(run("check", sbdf, "--root", short, "--json")[1])["functions"]
    reason = next(each for each in report["reasons"] if each["code"] == "bar-unassigned")
    assert words in reason["text"]
    assert reason["cure"].startswith(cure)


def check_codes(root, sbdf):
    (report,) = json.loads(run("check", sbdf, "--root", root, "--json")[1])["functions"]
    return {each["code"]: each["verdict"] for each in report["reasons"]}


def test_what_was_reset_behind_linux_is_told_without_decoding_too(short):
    add(
        short,
        f"{PORT}/0000:01:00.2",
        config=config(),
        resource=LINE.format(0x8010_0000, 0x801F_FFFF, 0x40200),
    )
    _, out = run("show", "01:00.2", "--root", short)
    assert "BAR 0 was cleared (it reads 0) and does not decode, but Linux has 0x80100000" in out
    assert check_codes(short, "01:00.2")["bar-drift"] == "refuse"


def test_a_bridge_that_was_reset_is_told_of_what_is_behind_it(short):
    line = LINE.format(0x8000_0000, 0x801F_FFFF, 0x200)
    for name, content in a_port(lines=14 * EMPTY_LINE + line + 2 * EMPTY_LINE).items():
        path = short / "sys/devices" / PORT / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert (
        "the memory window is closed, but Linux has 0x80000000-0x801fffff"
        in run("show", "00:1c.0", "--root", short)[1]
    )
    assert check_codes(short, "01:00.0")["window-drift"] == "refuse"


def test_ports_that_linux_gave_up_are_no_refusal(short):
    add(short, f"{PORT}/0000:01:00.3", config=config(bars=(1,)), resource=13 * EMPTY_LINE)
    assert check_codes(short, "01:00.3")["io-bar-unassigned"] == "warn"
    unset = LOST.format(0x7F, 0x2004_0101)
    add(short, f"{PORT}/0000:01:00.4", config=config(bars=(1,)), resource=unset + 12 * EMPTY_LINE)
    assert check_codes(short, "01:00.4")["bar-unassigned"] == "refuse"


@pytest.fixture
def translating(tmp_path):
    """A host bridge that adds 6 GiB, over a port and a function with two BARs; RAM ends at 2 GiB and more."""
    added = 0x1_8000_0000
    line = LINE.format(0x4000_0000 + added, 0x401F_FFFF + added, 0x200)
    add(tmp_path, PORT, a_port((0x4000, 0x4010), 14 * EMPTY_LINE + line + 2 * EMPTY_LINE))
    lines = (LINE.format(at + added, at + 0xFFFFF + added, 0x200) for at in (0x4000_0000, 0x4010_0000))
    add(
        tmp_path, NIC, config=config(command=2, bars=(0x4000_0000, 0x4010_0000)),
        resource="".join(lines) + 11 * EMPTY_LINE,
    )  # fmt: skip
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/iomem").write_text(
        f"00000000-7fffffff : System RAM\n{0x4000_0000 + added:x}-{0x5FFF_FFFF + added:x} : PCI Bus 0000:00\n"
    )
    return tmp_path


def test_a_translating_host_bridge_is_shown_once_and_is_no_finding(translating):
    _, out = run("show", "01:00.0", "--root", translating)
    assert "Translation:  the host bridge adds 0x180000000 to memory addresses; shown are" in out
    assert "Findings" not in out
    assert "BAR 0:  0x40000000  size 1M" in out
    found = check_codes(translating, "01:00.0")
    assert not {"bar-drift", "bar-over-ram"} & set(found)  # RAM at these addresses is the processor's
    code, out = run("space", "--root", translating)
    assert code == 0
    assert out.count("0x180000000") == 1
    assert "memory  0x40000000-0x5fffffff  size 512M  used 2M" in out  # in addresses of the bus
    device = json.loads(run("show", "01:00.0", "--root", translating, "--json")[1])["device"]
    assert device["translation"] == {"io": "0x0", "memory": "0x180000000"}
    listed = json.loads(run("list", "-s", "01:", "--root", translating, "--json")[1])
    del device["details"]
    assert listed["devices"] == [device]
    # a function on the root bus that is read alone shows no constant
    line = LINE.format(0x4030_0000 + 0x1_8000_0000, 0x403F_FFFF + 0x1_8000_0000, 0x40200)
    home = "pci0000:00/0000:00:02.0"
    add(translating, home, config=config(bars=(0x4030_0000,)), resource=line + 12 * EMPTY_LINE)
    assert "bar-drift" not in run("show", "00:02.0", "--root", translating)[1]
    (lone,) = json.loads(run("list", "-s", "00:02", "--root", translating, "--json")[1])["devices"]
    assert lone["findings"] == []


def test_recorded_machines_have_windows_and_nothing_is_missing_there():
    for name in ("lab-pv", "lab-pvh"):
        code, out = run("space", "--root", REPO / "fixtures/sysfs" / name)
        assert (code, "BARs without an address" in out) == (0, False)
        assert "root bus" in out
