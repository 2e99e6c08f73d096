"""`pcipt diff`: recordings of the lab, before and after what QEMU was told to do."""

import io
import json
from contextlib import redirect_stdout

import pytest

from pcipt.cli.machine.changes import read_state
from pcipt.cli.main import main
from pcipt.host.policy.boots import last_boot, record_boot
from tests.cli.commands.policy.test_policy import SERIAL, card, machine
from tests.trees import REPO, add

FIXTURES = REPO / "fixtures/sysfs"


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main(["diff", *map(str, arguments)])
    return code, out.getvalue()


@pytest.mark.parametrize("name", ["lab-pv", "lab-pvh"])
def test_a_recording_does_not_differ_from_itself(name):
    assert run(FIXTURES / name, FIXTURES / name) == (0, "")


@pytest.mark.parametrize("name", ["lab-pv", "lab-pvh"])
def test_what_was_plugged_is_new_and_what_was_unplugged_is_gone(name):
    """The lab puts a NIC behind an empty port, and takes it out again."""
    plugged, unplugged = (FIXTURES / name / "steps" / step for step in ("1-plugged", "2-unplugged"))
    there = json.loads(run(unplugged, plugged, "--json")[1])["changes"]
    back = json.loads(run(plugged, unplugged, "--json")[1])["changes"]
    assert [each["kind"] for each in there if each["kind"] in ("new", "gone", "moved", "replaced")] == ["new"]
    assert [(each["kind"], each["before"]) for each in back if each["kind"] == "gone"] == [
        ("gone", there[0]["after"])
    ]
    assert there[0]["now"] == back[0]["was"]


def test_a_shifted_bus_and_another_card(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    before, shifted = machine(tmp_path / "before"), machine(tmp_path / "shifted", bus=5)
    code, out = run(before, shifted)
    assert code == 4
    assert " ".join(out.split()) == "renumbered 0000:05:00.0 at 0000:05:00.0, was at 0000:03:00.0"
    other = machine(tmp_path / "other", nic=card(0x001B21FE))
    (change,) = json.loads(run(before, other, "--json")[1])["changes"]
    assert (change["kind"], change["was"]["serial"]) == ("replaced", SERIAL)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "00-1b" not in run(before, other, "--json")[1] + run(before, other)[1]


@pytest.mark.parametrize("options", [[], ["--keep", "serial"]])
def test_masked_serial_numbers_are_no_difference(tmp_path, options):
    """`pcipt record` masks them: a recording and the machine, and two recordings, have the same cards."""
    now = machine(tmp_path / "now")
    add(now, "pci0000:00/0000:00:1a.0", card(7))
    records = [tmp_path / name for name in ("first", "second")]
    for record in records:
        assert main(["record", str(record), "--root", str(now), *options]) == 0
        assert run(record, now) == run(now, record) == (0, "")
        machine(tmp_path / "now", bus=5)
    code, out = run(records[0], records[1])
    assert code == 4
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["gone", "0000:00:1a.0"], ["renumbered", "0000:05:00.0"],
    ]  # fmt: skip
    other = machine(tmp_path / "other", port="0000:00:1d.0")
    assert [line.split()[0] for line in run(records[1], other)[1].splitlines()] == ["moved", "moved"]


def test_it_says_that_masked_serial_numbers_are_not_compared(tmp_path, capsys):
    """Two cards that changed their slots are no change then."""
    now = machine(tmp_path / "now")
    add(now, "pci0000:00/0000:00:1a.0", card(7))
    assert main(["record", str(tmp_path / "masked"), "--root", str(now)]) == 0
    machine(now, nic=card(7))
    add(now, "pci0000:00/0000:00:1a.0", card())
    assert main(["record", str(tmp_path / "whole"), "--root", str(now), "--keep", "serial"]) == 0
    capsys.readouterr()
    for names, masked in ((["masked", "whole"], True), (["whole", "whole"], False)):
        assert main(["diff", *(str(tmp_path / name) for name in names)]) == 0
        said = capsys.readouterr().err
        assert (f"they are masked in {tmp_path}/masked" in said) is masked
        assert "no changes" in said


def test_what_cannot_be_read_is_one_line(tmp_path, capsys):
    assert main(["diff", str(tmp_path / "missing"), str(FIXTURES / "lab-pv")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_without_a_recording_it_is_the_last_boot(tmp_path, monkeypatch, capsys):
    boots = tmp_path / "boots"
    monkeypatch.setattr("pcipt.cli.commands.diff.last_boot", lambda boot: last_boot(boot, str(boots)))
    assert main(["diff"]) == 1
    assert "no recording of an earlier boot" in capsys.readouterr().err
    record_boot(str(FIXTURES / "lab-pv"), "ffffffff-1", "20261129T080000Z", str(boots))
    here = str(FIXTURES / "lab-pv")
    monkeypatch.setattr(
        "pcipt.cli.commands.diff.read_state", lambda root: read_state(here if root == "/" else root)
    )
    assert main(["diff"]) == 0
