import io
import json
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.firmware.passthrough.groups_cases import ALL, endpoint, root_port
from tests.machines import config
from tests.trees import add, dumps

BOTH = "0000:03:00.0 and 0000:03:00.1 are functions of one device and"
PORT, CARD = "pci0000:00/0000:00:1c.0", "pci0000:00/0000:00:1c.0/0000:03:00"


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main(["groups", *map(str, arguments)])
    return code, out.getvalue()


def answer(*arguments):
    code, out = run(*arguments, "--json")
    told = json.loads(out)
    assert (code, told["version"]) == (0, 1)
    return told["sets"]


@pytest.fixture
def machine(tmp_path):
    """A card of two functions without ACS behind a port with it; a disk; the ISA bridge."""
    root = tmp_path / "machine"
    add(root, PORT, config=root_port("00:1c.0", 3, acs=ALL).config, **{"class": "0x060400\n"})
    for number, driver in ((0, "nouveau"), (1, "snd_hda_intel")):
        raw = endpoint(f"03:00.{number}", "00:1c.0")
        home = add(root, f"{CARD}.{number}", config=raw.config, reset_method="flr\n")
        (home / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
    add(root, "pci0000:00/0000:00:17.0", config=config(size=256), reset_method="pm\n")
    add(
        root,
        "pci0000:00/0000:00:1f.0",
        config=config(class_code=0x060100, size=256),
        **{"class": "0x060100\n"},
    )
    disk = root / "sys/class/block/sda"
    disk.parent.mkdir(parents=True)
    disk.symlink_to("../../devices/pci0000:00/0000:00:17.0/ata1/block/sda")
    return root


def test_the_words(machine):
    code, out = run("-n", "--root", machine)
    assert code == 0
    assert out.splitlines() == [
        "alone:",
        "    0000:00:17.0 0200: 8086:10d3 (disk sda)",
        "set 1: 2 functions together",
        "    0000:03:00.0 0200: 8086:10d3 (driver nouveau)",
        "    0000:03:00.1 0200: 8086:10d3 (driver snd_hda_intel)",
        f"      functions-without-acs: {BOTH} can reach each other: it has no ACS",
        "Not known here, so sets may be larger: reserved regions.",
    ]


def test_one_function_is_enough_to_name_its_set(machine):
    for typed in ("03:00.1", "03:00.*", "00_1c.0-00_00.1"):
        (found,) = answer(typed, "--root", machine)
        assert [each["sbdf"] for each in found["functions"]] == ["0000:03:00.0", "0000:03:00.1"]
    assert found["number"] == 1
    assert [(edge["rule"], edge["one"], edge["other"]) for edge in found["edges"]] == [
        ("functions-without-acs", "0000:03:00.0", "0000:03:00.1")
    ]
    (alone,) = answer("00:17.0", "--root", machine)
    assert alone["number"] is None
    assert alone["functions"][0]["uses"] == [{"kind": "disk", "name": "sda", "through": None}]


def test_a_bridge_stays(machine):
    code, out = run("00:1c.0", "-n", "--root", machine)
    assert code == 0
    assert out.splitlines()[:2] == ["stays in dom0:", "    0000:00:1c.0 0604: 8086:10d3"]
    (found,) = answer("00:1c.0", "--root", machine)
    assert (found["functions"], found["bridges"]) == ([], ["0000:00:1c.0"])


WRONG = [
    ("04:00.0", 6, "no function"),
    ("00:82.0", 2, "device 82 is above 1f"),
    ("nonsense", 2, "nonsense"),
]


@pytest.mark.parametrize(("typed", "code", "words"), WRONG)
def test_what_is_absent_or_malformed(machine, typed, code, words, capsys):
    assert main(["groups", typed, "--root", str(machine)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert len(captured.err.splitlines()) == 1


def test_no_machine(tmp_path, capsys):
    assert main(["groups", "--root", str(tmp_path / "missing")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_was_not_read_is_named(machine):
    for number in range(2):
        path = machine / "sys/devices" / f"{CARD}.{number}/config"
        path.write_bytes(path.read_bytes()[:256])
    assert "sets may be larger: ACS, reserved regions." in run("03:00.0", "--root", machine)[1]
    (found,) = answer("03:00.0", "--root", machine)
    assert (found["number"], found["unknown"]) == (None, ["ACS"])


@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.name)
def test_every_function_of_a_dump_is_in_one_set(path):
    if not path.exists():
        pytest.skip("the dumps of other projects are not here: ../shared/data/pciutils")
    members = [each["sbdf"] for found in answer("--dump", path) for each in found["functions"]]
    assert len(members) == len(set(members))


def test_a_reason_that_several_have_is_shown_once(tmp_path):
    home = "pci0000:00/0000:00:1e.0"
    bridge = config(header=1, class_code=0x060400, buses=(0, 5, 5), size=256)
    add(tmp_path, home, config=bridge, **{"class": "0x060400\n"})
    for number in (1, 2, 3):
        add(tmp_path, f"{home}/0000:05:0{number}.0", config=config(size=256))
    code, out = run("--root", tmp_path)
    assert code == 0
    assert out.count("requester-id: behind the bridge 0000:00:1e.0 to conventional PCI all have its") == 1
    (found,) = answer("--root", tmp_path)
    assert [edge["rule"] for edge in found["edges"]].count("requester-id") == 3
