"""`pcipt decode`: what it prints, in its three forms, and how it ends."""

import gzip
import json
import struct
from pathlib import Path

import pytest

from pcipt.cli.main import main
from tests.machines import bridge
from tests.remap.writes.shadows import nic

BOOT = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "boots" / "switch"
LINE = (
    "setpci-394 [000] d..1. 45.8: conf1: (pci_conf1_write+0x0/0xf0) "
    "seg=0 bus=2 devfn=0 reg={reg} len=4 val={value}\n"
)


def port(n, address, value, size=4, direction="w"):
    record = {"n": n, "vcpu": 1, "dir": direction, "port": hex(address), "size": size, "value": hex(value)}
    return json.dumps(record) + "\n"


def config(n, register, value, size=4, direction="w"):
    """Access a register of 00:03.0."""
    return port(n, 0xCF8, 0x8000_1800 | register & 0xFC) + port(
        n + 1, 0xCFC | register & 3, value, size, direction
    )


SIZED = (
    config(1, 0, 0x10D3_8086, direction="r") + config(3, 4, 0, 2, "r") + config(5, 0x0E, 0, 1, "r")
    + config(7, 0x10, 0, direction="r") + config(9, 0x10, 0xFFFF_FFFF) + config(11, 0x10, 0xFFFE_0000, 4, "r")
    + config(13, 0x10, 0xFE80_0000) + config(15, 4, 2, 2)
)  # fmt: skip


@pytest.fixture
def recording(tmp_path):
    def make(text, name="recording"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return make


@pytest.fixture
def tree(tmp_path):
    """A recorded machine: a root port and a NIC behind it, whose BARs have sizes."""
    root = tmp_path / "machine"
    devices = root / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    for raw, place in ((bridge("00:1c.0", 2, 4), ""), (nic(), "0000:00:1c.0/")):
        home = root / "sys/devices/pci0000:00" / place / str(raw.sbdf)
        home.mkdir(parents=True)
        (home / "config").write_bytes(raw.config)
        lines = [*raw.resources, *[None] * (13 - len(raw.resources))]
        (home / "resource").write_text(
            "".join(
                f"{line.start:#018x} {line.start + line.size - 1:#018x} {line.flags:#018x}\n"
                if line and line.size
                else f"{0:#018x} {0:#018x} {0:#018x}\n"
                for line in lines
            )
        )
        for name, value in (("vendor", "0x8086"), ("device", "0x10d3"), ("class", "0x020000")):
            (home / name).write_text(value + "\n")
        (devices / str(raw.sbdf)).symlink_to(f"../../../devices/pci0000:00/{place}{raw.sbdf}")
    return root


def json_lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_lines(recording, capsys):
    assert main(["decode", recording(SIZED), "--json"]) == 0
    assert json_lines(capsys) == [
        {
            "type": "write",
            "n": 10,
            "sbdf": "0000:00:03.0",
            "offset": "0x10",
            "size": 4,
            "value": "0xffffffff",
            "who": "vcpu1",
        },
        {
            "type": "write",
            "n": 14,
            "sbdf": "0000:00:03.0",
            "offset": "0x10",
            "size": 4,
            "value": "0xfe800000",
            "who": "vcpu1",
        },
        {
            "type": "write",
            "n": 16,
            "sbdf": "0000:00:03.0",
            "offset": "0x4",
            "size": 2,
            "value": "0x2",
            "who": "vcpu1",
        },
        {
            "type": "change",
            "n": 16,
            "sbdf": "0000:00:03.0",
            "change": "decode",
            "from": {"io": False, "memory": False},
            "to": {"io": False, "memory": True},
        },
        {
            "type": "change",
            "n": 16,
            "sbdf": "0000:00:03.0",
            "change": "bar-mapped",
            "bar": 0,
            "bar_kind": "mem32",
            "address": "0xfe800000",
            "size": 131072,
            "from": None,
            "to": "0xfe800000",
        },
    ]


def test_words(recording, capsys):
    assert main(["decode", recording(SIZED)]) == 0
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "      16  0000:00:03.0  0x004 2 <- 0x2  vcpu1",
        "      16  0000:00:03.0  * decoding: nothing -> memory",
        "      16  0000:00:03.0  * BAR 0 mapped at 0xfe800000 (128K)",
    ]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_final_state_is_one_object(recording, capsys, form):
    assert main(["decode", recording(SIZED), "--final", *form]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "version": 1,
        "mapped": [{"sbdf": "0000:00:03.0", "bar": 0, "address": "0xfe800000", "size": 131072}],
        "virtual": [],
        "bridges": [],
        "lost": 0,
        "damaged": 0,
    }


def test_a_machine_gives_sizes_and_topology(recording, tree, capsys):
    text = LINE.format(reg=0x10, value="0xfe900000") + "CPU:0 [LOST 3 EVENTS]\n"
    assert main(["decode", recording(text), "--root", str(tree), "--json"]) == 0
    write, change = json_lines(capsys)
    assert (write["n"], write["who"]) == (1, "setpci-394")
    assert change == {
        "type": "change",
        "n": 1,
        "sbdf": "0000:02:00.0",
        "change": "bar-moved",
        "bar": 0,
        "bar_kind": "mem32",
        "address": "0xfe900000",
        "size": 131072,
        "from": "0xfe800000",
        "to": "0xfe900000",
        "assumed": "obeyed",
    }
    assert main(["decode", recording(text), "--root", str(tree), "--final"]) == 0
    end = json_lines(capsys)[0]
    assert end["lost"] == 3
    assert end["bridges"] == [{"sbdf": "0000:00:1c.0", "primary": 0, "secondary": 2, "subordinate": 4}]
    assert {"sbdf": "0000:02:00.0", "bar": 0, "address": "0xfe900000", "size": 131072} in end["mapped"]


def test_vpci_is_an_option(recording, tree, capsys):
    text = LINE.format(reg=0x10, value="0xfe900000")
    assert main(["decode", recording(text), "--root", str(tree), "--json", "--ignore-while-decoding"]) == 0
    assert json_lines(capsys)[1]["assumed"] == "ignored"


def test_a_bar_of_unknown_size_is_not_reported(recording, capsys):
    text = (
        LINE.format(reg=4, value="0")
        + LINE.format(reg=0x10, value="0xfe900000")
        + LINE.format(reg=4, value="2")
    )
    assert main(["decode", recording(text), "--json"]) == 0
    assert {line.get("change") for line in json_lines(capsys)} == {None, "decode"}


def test_damage_is_named_and_skipped(recording, capsys):
    path = recording(config(1, 4, 0, 2) + "damage\n" + config(5, 4, 1, 2))
    assert main(["decode", path, "--json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["n"] for line in captured.out.splitlines() if '"write"' in line] == [2, 6]
    assert captured.err == f"pcipt: {path}: line 3: no JSON object; skipped\n"


def test_strict_ends_with_an_error(recording, capsys):
    path = recording(config(1, 4, 0, 2) + "damage\n" + config(5, 4, 1, 2))
    assert main(["decode", path, "--json", "--strict"]) == 1
    captured = capsys.readouterr()
    assert [json.loads(line)["n"] for line in captured.out.splitlines() if '"write"' in line] == [2]
    assert captured.err == f"pcipt: {path}: line 3: no JSON object; stopped\n"


def test_ecam_regions_come_from_the_option_or_the_machine(recording, tree, capsys):
    text = json.dumps({"n": 1, "vcpu": 0, "dir": "w", "ecam": "0xf8100010", "size": 4, "value": "0x0"}) + "\n"
    path = recording(text)
    table = bytearray(
        struct.pack("<4sIB", b"MCFG", 60, 1).ljust(44, b"\0")
        + struct.pack("<QHBBI", 0xF800_0000, 0, 0, 63, 0)
    )
    table[9] = -sum(table) & 0xFF
    home = tree / "sys/firmware/acpi/tables"
    home.mkdir(parents=True)
    (home / "MCFG").write_bytes(bytes(table))
    for arguments in (["--ecam", "f8000000,0,0-3f"], ["--root", str(tree)]):
        assert main(["decode", path, "--json", *arguments]) == 0
        assert json_lines(capsys)[0]["sbdf"] == "0000:01:00.0"
    assert main(["decode", path, "--json", "--ecam", "e0000000,0,0-3f"]) == 0
    assert "1 accesses outside of the known ECAM regions" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["x", "e0000000,0,0,0", "e0000000,,", "e0000000,0,3f"])
def test_a_malformed_region_is_a_usage_error(recording, value):
    with pytest.raises(SystemExit) as caught:
        main(["decode", recording(SIZED), "--ecam", value])
    assert caught.value.code == 2


def test_what_cannot_be_read_is_an_error(recording, tmp_path, capsys):
    assert main(["decode", str(tmp_path / "absent")]) == 1
    assert main(["decode", recording("hello\n")]) == 1
    assert "is no recording that pcipt knows" in capsys.readouterr().err


def test_an_unknown_function_is_told(recording, capsys):
    assert main(["decode", recording(port(1, 0xCFC, 1)), "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "1 accesses by port whose function is unknown" in captured.err


def test_names_from_outside_reach_no_terminal_raw(recording, capsys):
    text = LINE.replace("setpci", "a\x1b[31mb").format(reg=4, value="0")
    assert main(["decode", recording(text)]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.skipif(not BOOT.is_dir(), reason="the recorded boots are not there (../shared/data/boots)")
def test_a_whole_boot(capsys):
    assert main(["decode", str(BOOT / "ports.jsonl.gz"), "--final"]) == 0
    end = json.loads(capsys.readouterr().out)
    with gzip.open(BOOT / "mappings.jsonl.gz") as file:
        mapped = {}
        for line in map(json.loads, file):
            mapped.pop((line["sbdf"], line["bar"]), None)
            if line["event"] == "map":
                mapped[line["sbdf"], line["bar"]] = {
                    key: line[key] for key in ("sbdf", "bar", "address", "size")
                }
    assert end["mapped"] == [mapped[key] for key in sorted(mapped)]
