"""`pcipt report` makes an archive that --root reads, and nothing of what was planted is in it."""

import gzip
import json
import os
import tarfile

import pytest

from pcipt.cli.commands import report
from pcipt.cli.main import main
from tests.answers import ANSWERS, answering
from tests.host.report.test_masks import BOOT, ID, MAC, with_serial
from tests.trees import REPO, add

SERIAL = bytes.fromhex("ccbbaaffff211b00")
HOST, USER, KEY = "alphahost", "alicia", b"MSDM-licence-key"
TRACES = [
    MAC.encode(),
    MAC.replace(":", "").encode(),
    ID.encode(),
    BOOT.encode(),
    HOST.encode(),
    USER.encode(),
]


@pytest.fixture
def machine(tmp_path):
    root = tmp_path / "machine"
    home = "pci0000:00/0000:00:03.0"
    add(root, home, config=with_serial(SERIAL), **{"class": "0x020000\n"})
    for path, text in {
        "proc/sys/kernel/hostname": f"{HOST}.example.org\n",
        "proc/sys/kernel/random/boot_id": f"{BOOT}\n",
        "proc/iomem": "00100000-7fffffff : System RAM\n  1e000000-1f0031d0 : Kernel code\n",
        "sys/firmware/acpi/tables/MSDM": KEY.decode(),
        "etc/pcipt/pcipt.toml": f'# of {HOST}, by /home/{USER}\nmode = "observe"\n',
        "etc/os-release": 'PRETTY_NAME="Debian"\n',
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def files_in(archive):
    with tarfile.open(archive) as tar:
        return {m.name: (tar.extractfile(m).read() if m.isreg() else m.linkname.encode()) for m in tar}


def test_nothing_that_was_planted_is_in_it(machine, tmp_path, capsys):
    archive = tmp_path / "it.tar.gz"
    assert main(["report", str(archive), "--root", str(machine)]) == 0
    whole = gzip.decompress(archive.read_bytes())
    assert SERIAL not in whole
    assert KEY not in whole
    assert [trace for trace in TRACES if trace in whole] == []
    out = capsys.readouterr().out
    assert out.startswith(
        f"{archive}: 1 function, recorded and masked\nread it: `pcipt list --root {archive}`\n"
    )
    assert {line.split()[0] for line in out.splitlines()[3:]} == {
        "serial", "boot-id", "host-name", "user", "kernel-address"
    }  # fmt: skip
    files = files_in(archive)
    assert b"serial" in files["pcipt-report/report/README"]
    assert files["pcipt-report/report/settings.toml"] == b'# of host-1, by /home/user-1\nmode = "observe"\n'


def test_what_is_kept_is_in_it(machine, tmp_path):
    archive = tmp_path / "it.tar.gz"
    assert (
        main(["report", str(archive), "--root", str(machine), "--keep", "serial", "--keep", "boot-id"]) == 0
    )
    whole = gzip.decompress(archive.read_bytes())
    assert SERIAL in whole
    assert BOOT.encode() in whole
    assert HOST.encode() not in whole


@pytest.mark.parametrize("command", [["list", "--json"], ["show", "00:06.0"], ["space"], ["host", "--json"]])
def test_it_is_read_back_by_root(tmp_path, capsys, command):
    machine = str(REPO / "fixtures/sysfs/lab-pv")
    archive = str(tmp_path / "it.tar.gz")
    assert main(["report", archive, "--root", machine]) == 0
    capsys.readouterr()
    code = main([*command, "--root", machine])
    of_machine = capsys.readouterr().out
    assert main([*command, "--root", archive]) == code
    assert capsys.readouterr().out == of_machine
    assert of_machine


def test_a_report_of_a_report_is_the_same(machine, tmp_path):
    one, two = tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"
    assert main(["report", str(one), "--root", str(machine)]) == 0
    assert main(["report", str(two), "--root", str(one)]) == 0
    first, second = files_in(one), files_in(two)
    recording = {
        name for name in first if not name.startswith("pcipt-report/report/") and "README" not in name
    }
    assert {name: second[name] for name in recording} == {name: first[name] for name in recording}


def test_what_the_service_says_is_in_it_masked(machine, tmp_path, monkeypatch):
    finding = {"sbdf": None, "code": "x", "text": f"{MAC} on {HOST}"}
    answers = {**ANSWERS, "Status": {**ANSWERS["Status"], "findings": [finding]}, "Rmrr": {"version": 1}}
    monkeypatch.setattr(report, "read_addresses", lambda _root: ["0000:02:00.0"])
    monkeypatch.setattr(report, "ROOT", str(machine))
    with answering(tmp_path / "control", answers) as control:
        assert main(["report", str(tmp_path / "it.tar.gz"), "--root", str(machine), "--socket", control]) == 0
    files = files_in(tmp_path / "it.tar.gz")
    told = json.loads(files["pcipt-report/report/status.json"])
    assert told["findings"][0]["text"] == "02:00:00:00:00:01 on host-1"
    assert json.loads(files["pcipt-report/report/history.json"])["events"]


def test_a_service_that_does_not_run_is_said(machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(report, "ROOT", str(machine))
    nobody = str(tmp_path / "nobody")
    assert main(["report", str(tmp_path / "it.tar.gz"), "--root", str(machine), "--socket", nobody]) == 0
    assert "pcipt: missing report/status.json: the pcipt daemon is not running" in capsys.readouterr().err
    text = files_in(tmp_path / "it.tar.gz")["pcipt-report/report/README"].decode()
    assert "report/status.json: the pcipt daemon is not running" in text


def test_a_file_that_exists_stays(machine, tmp_path, capsys):
    (tmp_path / "it").write_text("mine")
    assert main(["report", str(tmp_path / "it"), "--root", str(machine)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "it").read_text() == "mine"


def test_nothing_is_left_behind(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    os.mkdir(tmp_path / "tmp")
    monkeypatch.setattr("tempfile.tempdir", None)
    archive = str(tmp_path / "it.tar.gz")
    assert main(["report", archive, "--root", str(machine)]) == 0
    assert main(["list", "--root", archive]) == 0
    assert os.listdir(tmp_path / "tmp") == []
