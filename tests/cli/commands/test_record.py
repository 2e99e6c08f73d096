import io
import os
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from pcipt.host.policy.boots import record_boot, recorded_boots
from tests.trees import REPO, a_fifo, a_link, add


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([*map(str, arguments)])
    return code, out.getvalue()


@pytest.mark.parametrize("command", [["list", "--json"], ["list"], ["tree"]])
def test_a_recording_answers_byte_for_byte(recorded, tmp_path, command):
    assert run("record", tmp_path / "copy", "--root", recorded)[0] == 0
    assert run(*command, "--root", tmp_path / "copy") == run(*command, "--root", recorded)


def test_the_live_machine_answers_byte_for_byte(tmp_path):
    if not os.path.isdir("/sys/bus/pci/devices"):
        pytest.skip("this machine has no PCI")
    assert run("record", tmp_path / "copy")[0] == 0
    assert run("list", "--json", "--root", tmp_path / "copy") == run("list", "--json")


def test_what_was_recorded_is_told(tmp_path):
    root = tmp_path / "root"
    add(root, "pci0000:00/0000:00:1f.2", driver=a_link("../../../bus/pci/drivers/ahci"))
    code, out = run("record", tmp_path / "copy", "--root", root)
    assert code == 0
    # five files, the driver, the entry, the README
    assert out.splitlines() == [
        f"recorded 1 function, 8 files, in {tmp_path}/copy; write into its README.md which machine it is",
        "masked: nothing; nothing was found that identifies the machine",
    ]


def test_what_was_left_out_is_told_on_stderr(tmp_path, capsys):
    root = tmp_path / "root"
    for number in range(25):
        add(root, f"pci0000:00/0000:00:{number:02x}.0", config=a_fifo)
    assert main(["record", str(tmp_path / "copy"), "--root", str(root)]) == 0
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 21
    assert shown[0].startswith("pcipt: left out sys/devices/pci0000:00/0000:00:00.0/config: ")
    assert shown[-1] == "pcipt: left out 5 more files"


def test_a_full_directory_is_refused(tmp_path, capsys):
    (tmp_path / "x").touch()
    assert main(["record", str(tmp_path)]) == 1
    assert (
        capsys.readouterr().err
        == f"pcipt: {tmp_path}: is not empty; a machine is recorded into a new directory; "
        "`pcipt help record` shows how to use this command, with examples\n"
    )


def test_a_boot_is_recorded_once(tmp_path, monkeypatch, capsys):
    boots = str(tmp_path / "boots")
    monkeypatch.setattr(
        "pcipt.cli.commands.record.record_boot", lambda root, boot, now: record_boot(root, boot, now, boots)
    )
    machine = str(REPO / "fixtures/sysfs/lab-pv")
    assert main(["record", "--boot", "--root", machine]) == 0
    assert "recorded in" in capsys.readouterr().out
    assert main(["record", "--boot", "--root", machine]) == 0
    assert "already" in capsys.readouterr().out
    assert len(recorded_boots(boots)) == 1
    for wrong in (["record"], ["record", "--boot", str(tmp_path / "x")]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2
        assert "give either DIR or --boot; `pcipt record --help`" in capsys.readouterr().err
