import io
import json
import re
import shutil
import subprocess
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.machines import config
from tests.trees import REPO, add, dumps


def rows(data):
    return "".join(f"{at:02x}: {data[at : at + 16].hex(' ')}\n" for at in range(0, len(data), 16))


HOST_BRIDGE = f"\n0000:00:00.0 x\n{rows(config(class_code=0x060000))}\n"


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments)])
    return code, out.getvalue()


MARK = re.compile(r"\[set [0-9]+\] ")


def unmarked(*arguments):
    """Draw a tree without the marks of sets, which lspci does not have."""
    code, out = run("tree", *arguments)
    return code, MARK.sub("", out)


def lspci(*arguments):
    command = ["lspci", *map(str, arguments), "-tv"]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


needs_lspci = pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci (pciutils) is not installed")


@needs_lspci
def test_the_tree_of_a_recorded_machine_is_lspcis(recorded):
    if not any(recorded.glob("sys/bus/pci/devices/*/vendor")):
        pytest.skip("lspci cannot read a tree without vendor files")
    theirs = lspci("-A", "linux-sysfs", "-O", f"sysfs.path={recorded}/sys/bus/pci")
    assert unmarked("--root", recorded) == (0, theirs)


@needs_lspci
@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.name)
def test_the_tree_of_a_dump_is_lspcis(path, tmp_path):
    if not path.exists():
        pytest.skip("the recordings of other projects are not here")
    # lspci draws bus 0 of segment 0 also where a dump has nothing on it: both are given something there
    data = path.read_bytes()
    if not re.search(rb"^(0000:)?00:[01][0-9a-f]\.", data, re.MULTILINE):
        data += HOST_BRIDGE.encode()
    (tmp_path / "dump").write_bytes(data)
    assert unmarked("--dump", tmp_path / "dump") == (0, lspci("-F", tmp_path / "dump"))


@pytest.fixture
def machine(tmp_path):
    """Two root buses; a bridge with two functions behind it, one with none, one whose bus nobody numbered."""
    for home, registers in {
        "pci0000:00/0000:00:00.0": {},
        "pci0000:00/0000:00:1c.0": {"header": 1, "buses": (0, 1, 3)},
        "pci0000:00/0000:00:1c.0/0000:01:00.0": {},
        "pci0000:00/0000:00:1c.0/0000:01:00.1": {},
        "pci0000:00/0000:00:1d.0": {"header": 1, "buses": (0, 4, 4)},
        "pci0000:00/0000:00:1e.0": {"header": 1, "buses": (0, 0, 0)},
        "pci0000:40/0000:40:00.0": {},
        "pci0000:00/0000:00:0f.0/0000:09:00.0": {},  # its bridge has vanished
    }.items():
        add(tmp_path, home, config=config(**registers))
    return tmp_path


def test_a_tree_in_numbers(machine):
    code, out = run("tree", "-n", "--root", machine)
    assert code == 0
    assert out.splitlines() == [
        "-+-[0000:00]-+-00.0  8086:10d3",
        " |           +-1c.0-[01-03]--+-00.0  8086:10d3",
        " |           |               \\-00.1  8086:10d3",
        " |           +-1d.0-[04]--",
        " |           \\-1e.0--",
        " +-[0000:09]?--00.0  8086:10d3",
        " \\-[0000:40]---00.0  8086:10d3",
    ]


def test_functions_that_can_only_go_together_are_marked():
    """In the recording 1f.2 and 1f.3 are functions of one device without ACS; 1f.0 is a bridge and stays."""
    root = REPO / "fixtures/sysfs/lab-pv"
    lines = run("tree", "-n", "--root", root)[1].splitlines()
    marked = [line.split("-", 1)[1] for line in lines if "[set" in line]
    assert marked == ["1f.2  [set 1] 8086:2922", "1f.3  [set 1] 8086:2930"]
    (bus,) = json.loads(run("tree", "--root", root, "--json")[1])["buses"]
    sets = {each["sbdf"]: each["set"] for each in bus["functions"]}
    assert {sbdf: number for sbdf, number in sets.items() if number is not None} == {
        "0000:00:1f.2": 1,
        "0000:00:1f.3": 1,
    }


def test_a_tree_as_json_holds_every_function_once(machine):
    code, out = run("tree", "--root", machine, "--json")
    shown = json.loads(out)
    assert (code, shown["version"]) == (0, 1)
    assert [(bus["segment"], bus["bus"]) for bus in shown["buses"]] == [(0, 0), (0, 9), (0, 0x40)]
    assert [bus["root"] for bus in shown["buses"]] == [True, False, True]

    def walk(functions):
        for function in functions:
            yield function["sbdf"]
            yield from walk(function["functions"])

    found = [sbdf for bus in shown["buses"] for sbdf in walk(bus["functions"])]
    assert sorted(found) == sorted(path.name for path in (machine / "sys/bus/pci/devices").iterdir())
    port = shown["buses"][0]["functions"][1]
    assert (port["sbdf"], port["secondary"], port["subordinate"]) == ("0000:00:1c.0", 1, 3)


def dump_of(path, bridges):
    """Write a dump of bridges: (address, primary, secondary, subordinate)."""
    path.write_text("".join(f"{at} x\n{rows(config(header=1, buses=buses))}\n" for at, *buses in bridges))
    return path


def test_a_chain_of_all_buses_is_drawn(tmp_path):
    chain = [(f"{bus:02x}:00.0", bus, bus + 1, 255) for bus in range(255)]
    code, out = run("tree", "-n", "--dump", dump_of(tmp_path / "dump", chain))
    assert code == 0
    assert out.count("00.0") == 255
    assert run("tree", "--json", "--dump", tmp_path / "dump")[0] == 0


def test_bridges_that_claim_each_other_are_drawn_once(tmp_path):
    loop = [("01:00.0", 1, 2, 2), ("02:00.0", 2, 1, 2)]
    code, out = run("tree", "-n", "--dump", dump_of(tmp_path / "dump", loop))
    assert code == 0
    assert out.count("00.0") == 2
