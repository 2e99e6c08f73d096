"""`pcipt policy apply`: what is kept is released, what is not certain or a guest's is left alone."""

import json
import os
import shutil

import pytest

from pcipt.cli.main import main
from pcipt.host.policy.policy_files import add_entries
from pcipt.pci import PciPath
from pcipt.pci.identity import Identity
from pcipt.pci.ids import Ids
from pcipt.pci.policy.entries import Entry
from tests.answers import action
from tests.toolstack import ANSWERS, NIC, fake_toolstack, told

PATH = PciPath(0, ((0, 3, 0),))


@pytest.fixture
def apply(tmp_path, monkeypatch, daemon, capsys):
    """Run `pcipt policy apply` on a machine with a NIC that has a driver and is kept for guests."""
    path, answers = daemon
    answers |= {**ANSWERS, "Release": told(actions=[action("withdraw-reserved")])}
    fake = fake_toolstack(tmp_path, monkeypatch)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    add_entries([Entry(Identity(PATH, ids=Ids(0x8086, 0x10D3)), "web")], str(tmp_path / "etc"))

    def run(*arguments):
        where = ["--root", str(fake.root), "--policy", str(tmp_path / "etc"), "--socket", str(path)]
        code = main(["policy", "apply", *arguments, *where])
        return code, *capsys.readouterr()

    run.root, run.answers, run.etc = fake.root, answers, tmp_path / "etc"
    return run


def driver_of(root):
    link = root / "sys/bus/pci/devices" / NIC / "driver"
    return os.path.basename(os.readlink(link)) if link.is_symlink() else None


def log_of(root):
    path = root / "xl.log"
    return path.read_text().splitlines() if path.exists() else []


def test_a_driver_of_dom0_keeps_its_device(apply):
    before = driver_of(apply.root)
    code, _, err = apply()
    assert (code, driver_of(apply.root), log_of(apply.root)) == (4, before, [])
    assert "--from-drivers" in err
    assert "--kernel" in err


def test_with_from_drivers_it_is_released_and_again_changes_nothing(apply):
    code, _, _ = apply("--from-drivers")
    assert (code, driver_of(apply.root)) == (0, "pciback")
    assert f"pci-assignable-add {NIC}" in log_of(apply.root)
    apply.answers["Status"] = {**ANSWERS["Status"], "given_away": [{"sbdf": NIC, "owner": "quarantine"}]}
    shutil.copy(apply.root / "xl.log", apply.root / "before")
    assert apply()[0] == 0
    assert log_of(apply.root) == (apply.root / "before").read_text().splitlines()


@pytest.mark.parametrize("caught", [True, False])
def test_what_the_hook_caught_is_quarantined_and_told(apply, caught):
    link = apply.root / "sys/bus/pci/devices" / NIC / "driver"
    link.unlink(missing_ok=True)
    if caught:
        (apply.root / "run").mkdir()
        (apply.root / "run/pcipt.caught").write_text(f"{NIC}\n")
    code, _, err = apply()
    assert (code, driver_of(apply.root)) == (0, "pciback")
    assert ("the hook in the initramfs kept dom0's drivers away" in err) is caught
    assert ("nothing kept dom0's drivers away" in err) is not caught


def test_a_guests_device_is_left_with_it(apply):
    apply.answers["Status"] = {**ANSWERS["Status"], "given_away": [{"sbdf": NIC, "owner": "guest 3"}]}
    assert apply("--from-drivers")[0] == 0
    assert log_of(apply.root) == []


def test_another_device_in_its_place_is_not_released(apply):
    (apply.root / "sys/bus/pci/devices" / NIC / "device").write_text("0x1533\n")
    code, out, err = apply("--from-drivers")
    assert (code, out, log_of(apply.root)) == (4, "", [])
    assert "does not keep or release this device" in err


def test_a_dry_run_does_nothing(apply):
    code, out, _ = apply("--from-drivers", "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["result"] == "planned"
    assert log_of(apply.root) == []
