import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.answers import on_terminal
from tests.machines import config
from tests.trees import EMPTY_LINE, REPO, a_link, add, dumps

LAB = REPO / "fixtures/sysfs/lab-pv"
BAR = "0x00000000feb00000 0x00000000feb1ffff 0x0000000000040200\n"


def run(*arguments):
    """Run the command as a user does, without a terminal: exit code, output."""
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments)])
    return code, out.getvalue()


def lspci(*arguments):
    command = ["lspci", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


@pytest.fixture
def machine(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:1f.2", config=config(size=256, bars=(0xFEB0_0000,), command=2),
        resource=BAR + 12 * EMPTY_LINE, driver=a_link("../../../bus/pci/drivers/bad\x1b[2Jname"))  # fmt: skip
    add(tmp_path, "pci0000:00/0000:00:02.0", vendor="0xfffe\n", config=config(vendor=0xFFFE))
    add(tmp_path, "pci0000:00/0000:00:03.0", config=b"\xff" * 64)
    return tmp_path


needs_lspci = pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")


@needs_lspci
@pytest.mark.parametrize("options", [["-Dnn"], ["-Dn", "-n"]], ids=["names", "numbers"])
def test_rows_of_a_recorded_machine_are_lspcis(recorded, options):
    if not any(recorded.glob("sys/bus/pci/devices/*/vendor")):
        pytest.skip("lspci cannot read a tree without vendor files")
    theirs = lspci("-A", "linux-sysfs", "-O", f"sysfs.path={recorded}/sys/bus/pci", options[0])
    assert run("list", "--root", recorded, *options[1:]) == (0, theirs)


@needs_lspci
@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.name)
def test_rows_of_a_dump_are_lspcis(path):
    if not path.exists():
        pytest.skip("the recordings of other projects are not here")
    assert run("list", "--dump", path) == (0, lspci("-F", path, "-Dnn"))


def test_rows_say_what_is_unknown_and_what_does_not_answer(machine):
    code, out = run("list", "-n", "--root", machine)
    assert code == 0
    assert out.splitlines() == [
        "0000:00:02.0 0200: fffe:10d3",
        "0000:00:03.0 0200: 8086:10d3 (does not answer)",
        "0000:00:1f.2 0200: 8086:10d3",
    ]
    assert "Device [fffe:10d3]" in run("list", "--root", machine)[1]


SLOTS = [
    ("00:1f.2", ["1f.2"]),
    ("2", ["02.0"]),
    ("*.0", ["02.0", "03.0"]),
    (".2", ["1f.2"]),
    ("0000:00:", ["02.0", "03.0", "1f.2"]),
    ("pci_0000_00_1f_2", ["1f.2"]),
    ("(0000:00:1f.2)", ["1f.2"]),
    ("5:", []),
]


@pytest.mark.parametrize(("slot", "expected"), SLOTS)
@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_slot_filter_chooses(machine, slot, expected, form):
    code, out = run("list", "--root", machine, "-s", slot, *form)
    shown = (
        [d["sbdf"] for d in json.loads(out)["devices"]]
        if form
        else [row.split()[0] for row in out.splitlines()]
    )
    assert (code, shown) == (0, [f"0000:00:{name}" for name in expected])


@pytest.mark.parametrize("slot", ["00:82.0", "x", "", "1:2:3:4.0"])
def test_a_malformed_filter_is_a_usage_error(machine, slot, capsys):
    assert main(["list", "--root", str(machine), "-s", slot]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pcipt: malformed address")


KEYS = [
    "sbdf", "path", "vendor", "device", "class", "revision", "subsystem_vendor", "subsystem_device", "header",
    "driver", "numa_node", "bars", "bridge", "capabilities", "sriov", "physfn", "findings",
]  # fmt: skip


def test_json_has_every_key_and_one_form(machine):
    code, out = run("list", "--root", machine, "--json")
    shown = json.loads(out)
    assert code == 0
    assert shown["version"] == 1
    for device in shown["devices"]:
        assert set(KEYS) <= set(device)
    device = shown["devices"][2]
    assert (device["vendor"], device["class"], device["revision"]) == ("0x8086", "0x020000", "0x00")
    assert device["bars"] == [
        {
            "index": 0,
            "kind": "mem32",
            "address": "0xfeb00000",
            "size": 0x2_0000,
            "prefetchable": False,
            "decoding": True,
            "assigned": True,
            "claimed": None,
        }
    ]
    assert device["driver"] == "bad\x1b[2Jname"
    assert "\x1b" not in out  # JSON escapes it
    assert [finding["code"] for finding in shown["devices"][1]["findings"]] == ["no-answer"]


def test_pretty_json_is_the_same_object(machine):
    short, pretty = (run("list", "--root", machine, f"--json={form}")[1] for form in ("short", "pretty"))
    assert json.loads(short) == json.loads(pretty)
    assert short.count("\n") == 1 < pretty.count("\n")


def test_a_filter_changes_nothing_in_the_json_of_what_it_chooses(recorded):
    devices = json.loads(run("list", "--root", recorded, "--json")[1])["devices"]
    for device in devices[:: max(1, len(devices) // 7)]:
        (alone,) = json.loads(run("list", "--root", recorded, "--json", "-s", device["sbdf"])[1])["devices"]
        assert alone == device


def test_a_root_without_a_machine_is_one_clear_line(tmp_path, capsys):
    assert main(["list", "--root", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"pcipt: {tmp_path}/sys/bus/pci/devices: no such file or directory; "
        f"`ls {tmp_path}` shows what is there\n"
    )


def test_a_dump_without_a_function_is_one_clear_line(tmp_path, capsys):
    (tmp_path / "dump").write_text("hello\n")
    assert main(["list", "--dump", str(tmp_path / "dump")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_colour_and_footer_are_for_terminals(machine):
    plain = run("list", "-n", "--root", machine)[1]
    shown, _ = on_terminal("list", "-n", "--root", machine)
    assert "\x1b[" in shown
    assert shown.endswith("\n3 functions, 1 finding in their headers.\n")
    assert on_terminal("list", "-n", "--no-legend", "--root", machine, TERM="dumb") == (plain, 0)
    uncoloured, code = on_terminal("list", "-n", "--no-legend", "--root", machine, columns=80, NO_COLOR="1")
    assert code == 0
    assert [line.split() for line in uncoloured.splitlines()] == [
        ["0000:00:02.0", "-", "0200", "fffe:10d3"],
        ["0000:00:03.0", "-", "0200", "8086:10d3", "(does", "not", "answer)"],
        ["0000:00:1f.2", "bad\\x1b[2Jname", "0200", "8086:10d3"],
    ]


HOST = "Host bridge [0600]"
DRAM = "Intel Corporation 82G33/G31/P35/P31 Express DRAM Controller [8086:29c0]"


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        (80, ["0000:00:00.0 -          Host bridge    Intel Corporation 82G33/G31/… [8086:29c0]"]),
        (200, [f"0000:00:00.0 -          {HOST:37} {DRAM}"]),  # the longest class has 37
    ],
)  # fmt: skip
def test_rows_are_fitted_to_the_terminal(columns, first):
    if "Host bridge" not in run("list", "--root", LAB)[1]:
        pytest.skip("there is no pci.ids here")
    shown, _ = on_terminal("list", "--root", LAB, columns=columns, NO_COLOR="1")
    assert shown.splitlines()[: len(first)] == first


@pytest.mark.parametrize("columns", [60, 80, 160])
def test_each_function_is_one_line_with_its_whole_address_its_driver_and_its_ids(columns):
    shown, _ = on_terminal("list", "--no-legend", "--root", LAB, columns=columns, NO_COLOR="1")
    lines = shown.splitlines()
    devices = json.loads(run("list", "--root", LAB, "--json")[1])["devices"]
    assert len(lines) == len(devices)
    for line, device in zip(lines, devices, strict=True):
        assert len(line) <= columns
        assert line.startswith(device["sbdf"] + " ")
        assert line.split()[1].rstrip("….") in (device["driver"] or "-")
        assert f"[{int(device['vendor'], 16):04x}:{int(device['device'], 16):04x}]" in line


def test_text_reads_no_more_than_the_header(machine):
    # A config whose bytes behind the header cannot be had: text does not miss them.
    trace = machine / "reads"
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    watch = ["strace", "-f", "-e", "trace=openat,read,pread64", "-o", str(trace)]
    command = [*watch, sys.executable, "-m", "pcipt.cli.main", "list", "--root", str(machine)]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)
    lines = trace.read_text(errors="replace").splitlines()
    reads = [lines[at + 1] for at, line in enumerate(lines) if "openat" in line and '"config"' in line]
    assert len(reads) == 3
    assert all(line.rstrip().endswith(", 64) = 64") for line in reads)


def test_text_does_not_load_what_it_does_not_need(machine):
    probe = "import sys; from pcipt.cli.main import main; main(sys.argv[1:]); print(*sys.modules)"
    command = [sys.executable, "-c", probe, "list", "--root", str(machine)]
    shown = subprocess.run(command, cwd=REPO, check=True, capture_output=True, text=True).stdout
    loaded = shown.splitlines()[-1].split()
    assert "pcipt.host.sysfs" in loaded
    unwanted = {"pyroute2", "structlog", "asyncio", "cffi", "socket", "pcipt.host.uevents", "pcipt.xen"}
    assert not unwanted & set(loaded)
