import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from pcipt.cli.main import main
from pcipt.pci import RawFunction, Sbdf
from tests.firmware.host_tables import good_dmar, madt, put_tables, put_xen
from tests.firmware.passthrough_cases import conventional
from tests.firmware.reserved_tables import rmrr, scope
from tests.machines import config
from tests.trees import DATA, EMPTY_LINE, RECORDED, REPO, add, dumps, unpack

VERDICTS = Path(__file__).parent / "verdicts"
PORT = "pci0000:00/0000:00:1c.0"
LINE = "0x00000000{:08x} 0x00000000{:08x} 0x0000000000040200\n"


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main(["check", *map(str, arguments)])
    return code, out.getvalue()


def checked(*arguments):
    code, out = run(*arguments, "--json")
    answer = json.loads(out)
    assert answer.pop("version") == 1
    return code, answer


def in_short(answer):
    """Write an answer as a list to review: verdict, function, why; and what nobody knew."""
    lines = []
    for each in answer["functions"]:
        codes = [f"{reason['code']}={reason['verdict']}" for reason in each["reasons"]]
        policy = ["rdm_policy=relaxed"] if each["rdm_policy"] == "relaxed" else []
        lines.append(" ".join([each["verdict"], each["sbdf"], *codes, *policy]))
    unknown = dict.fromkeys(what for each in answer["functions"] for what in each["unknown"])
    return "\n".join([*lines, f"unknown: {', '.join(unknown) or 'nothing'}", ""])


def compare(name, *arguments):
    code, answer = checked(*arguments)
    assert in_short(answer) == (VERDICTS / f"{name}.txt").read_text()
    assert code == (0 if all(each["verdict"] == "ok" for each in answer["functions"]) else 4)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_machines(name, tmp_path):
    compare(name, "--root", unpack(name, tmp_path))


@pytest.mark.parametrize("path", dumps(), ids=lambda path: path.name)
def test_dumps(path):
    if not path.exists():
        pytest.skip("the dumps of other projects are not here: ../shared/data/pciutils")
    compare(path.name, "--dump", path)


FIXTURES = sorted(
    str(place.relative_to(REPO / "fixtures/sysfs").parent)
    for place in (*REPO.glob("fixtures/sysfs/*/sys"), *REPO.glob("fixtures/sysfs/*/steps/*/sys"))
)


@pytest.mark.parametrize("name", FIXTURES)
def test_fixtures(name):
    compare(name.replace("/", "-"), "--root", REPO / "fixtures/sysfs" / name)


def test_every_list_of_verdicts_is_somebodys():
    if not DATA.exists():
        pytest.skip("the recordings of other projects are not here")
    expected = {*RECORDED, *(path.name for path in dumps()), *(name.replace("/", "-") for name in FIXTURES)}
    assert {path.stem for path in VERDICTS.glob("*.txt")} == expected


@pytest.fixture
def machine(tmp_path):
    """A NIC of two functions that share a region with a USB controller; a disk with / on it; a console."""
    root = tmp_path / "machine"
    add(root, "pci0000:00/0000:00:00.0", config=config(class_code=0x060000), **{"class": "0x060000\n"})
    add(root, PORT, config=config(header=1, class_code=0x060400, buses=(0, 3, 3)), **{"class": "0x060400\n"})
    for number in range(2):
        add(root, f"{PORT}/0000:03:00.{number}", reset_method="flr\n")
    add(root, "pci0000:00/0000:00:14.0", reset_method="pm\n", **{"class": "0x0c0330\n"})
    add(root, "pci0000:00/0000:00:17.0", reset_method="pm\n", **{"class": "0x010601\n"})
    add(
        root,
        "pci0000:00/0000:00:02.0",
        boot_vga="1\n",
        config=config(class_code=0x030000),
        **{"class": "0x030000\n"},
    )
    shared = rmrr(0x7B00_0000, 0x7B00_FFFF, scope(0, (0x1C, 0), (0, 0)), scope(0, (0x14, 0)))
    put_tables(root, DMAR=good_dmar(shared), APIC=madt(2))
    put_xen(root)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("25 1 8:2 / / rw - ext4 /dev/sda2 rw\n")
    (root / "proc/iomem").write_text("00100000-7affffff : System RAM\n7b000000-7fffffff : Reserved\n")
    disk = "../../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2"
    put_link(root / "sys/dev/block/8:2", disk)
    (root / "sys/class/tty/console").mkdir(parents=True)
    (root / "sys/class/tty/console/active").write_text("tty0\n")
    return root


def put_link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def verdicts(answer):
    return {
        each["sbdf"].removeprefix("0000:"): [each["verdict"], *(reason["code"] for reason in each["reasons"])]
        for each in answer["functions"]
    }


def test_a_machine_of_which_much_is_known(machine):
    code, answer = checked("--root", machine)
    assert code == 4
    assert verdicts(answer) == {
        "00:00.0": ["refuse", "platform"],
        "00:1c.0": ["refuse", "platform"],
        "00:02.0": ["refuse", "console", "no-reset", "igd"],
        "00:17.0": ["refuse", "root-filesystem"],
        "00:14.0": ["warn", "reserved-shared", "goes-along"],
        "03:00.0": ["warn", "reserved-shared", "device-split", "address-may-shift", "goes-along"],
        "03:00.1": ["warn", "device-split", "address-may-shift"],
    }
    assert (answer["host"]["verdict"], answer["host"]["xen"]) == ("ok", "4.17.7")
    assert [each["verdict"] for each in answer["functions"]] == ["refuse"] * 4 + ["warn"] * 3
    assert answer["snippets"]["xl"] == [
        'pci = [ "00:14.0,rdm_policy=relaxed" ]',
        'pci = [ "03:00.0,rdm_policy=relaxed" ]',
        'pci = [ "03:00.1" ]',
    ]


def test_functions_named_together_leave_together(machine):
    code, answer = checked("03:00.*", "00:14.0", "--root", machine)
    assert code == 4
    assert verdicts(answer)["03:00.1"] == ["unknown", "address-may-shift"]  # its capabilities were not read
    (shared,) = (r for each in answer["functions"] for r in each["reasons"] if "03:00.0" in each["sbdf"]
                 and r["code"] == "reserved-shared")  # fmt: skip
    assert "rdm_policy=strict" in shared["text"]
    assert "dom0 keeps" not in shared["text"]
    assert "rdm_policy=relaxed" in shared["cure"]
    assert answer["snippets"] == {
        "xl": ['pci = [ "00:14.0,rdm_policy=relaxed", "03:00.0,rdm_policy=relaxed", "03:00.1" ]'],
        "xl.options": [],
        "xen-pciback.hide": "(0000:00:14.0)(0000:03:00.0)(0000:03:00.1)",
        "xen": [],
    }


NAMES = [
    # what is typed -> the functions meant
    (["03:00.0"], ["0000:03:00.0"]),
    (["00_1c.0-00_00.1"], ["0000:03:00.1"]),  # a PCI path
    (["dom0:03_00.0", "pci_0000_03_00_1"], ["0000:03:00.0", "0000:03:00.1"]),
    (["(0000:03:00.0)(0000:03:00.1)"], ["0000:03:00.0", "0000:03:00.1"]),  # XCP-ng's fashion
    (["xen-pciback.hide=(03:00.1)"], ["0000:03:00.1"]),
    (["03:00.0", "03:00.*", "03:00.0"], ["0000:03:00.0", "0000:03:00.1"]),  # each once
]


@pytest.mark.parametrize(("typed", "meant"), NAMES)
def test_every_notation(machine, typed, meant):
    answer = checked(*typed, "--root", machine)[1]
    assert sorted(each["sbdf"] for each in answer["functions"]) == meant


WRONG = [
    # what is typed, the exit code, what is said
    ("04:00.0", 6, "no function 0000:04:00.0 on this machine; `pcipt list --root "),
    ("03:00:0", 6, "did you mean 0000:03:00.0?"),  # a colon for the point
    ("09:00.*", 6, "no function 09:00.*"),
    ("00_1d.0-00_00.0", 6, "no function 00_1d.0-00_00.0"),
    ("00:82.0", 2, "device 82 is above 1f"),
    ("(0000:03:00.0)(0000:03:00.9)", 2, "function 9 is above 7"),
    ("xen-pciback.hide=0000:03:00.0", 2, "without parentheses"),
]


@pytest.mark.parametrize(("typed", "code", "words"), WRONG)
def test_what_is_absent_or_malformed(machine, typed, code, words, capsys):
    assert main(["check", typed, "--root", str(machine)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


def test_the_words(machine):
    code, out = run("03:00.1", "--root", machine)
    assert code == 4
    lines = out.splitlines()
    assert lines[0] == "warn    0000:03:00.1  (path 00_1c.0-00_00.1)"
    assert lines[1].startswith(
        "        device-split: it is one function of a device, and 0000:03:00.0 would stay"
    )
    assert lines[2] == "          -> pass all of them: `pcipt check '0000:03:00.*'`"
    assert '    pci = [ "03:00.1" ]' in lines
    assert "    xen-pciback.hide=(0000:03:00.1)" in lines
    assert any(
        line.startswith("Not known here, so not judged: capabilities, what Xen knows") for line in lines
    )


def test_all_functions_print_no_lines_to_paste(machine):
    out = run("--root", machine)[1]
    lines = out.splitlines()
    answer = checked("--root", machine)[1]
    first = [each["sbdf"] for each in answer["functions"] if each["verdict"] in ("ok", "warn")]
    assert lines[:2] == ["Host: ok", "    dom0 PV, Xen 4.17.7, Linux 6.1.0-18-amd64"]
    (passable,) = [line for line in lines if line.startswith("Can be passed through: ")]
    assert all(sbdf in passable for sbdf in first)
    words = [line.split()[0] for line in lines if line.startswith(("ok ", "warn ", "unknown ", "refuse "))]
    assert words == sorted(words, key=["ok", "warn", "unknown", "refuse"].index)
    parts = [each["sbdf"] for each in answer["functions"]
             if any(reason["code"] == "platform" for reason in each["reasons"])]  # fmt: skip
    folded = [line for line in lines if "of the host: " in line]
    assert folded == [f"refuse  {len(parts)} bridges and parts of the host: {', '.join(parts)}"]
    assert "platform:" not in out
    assert "xen-pciback.hide" not in out


def test_a_function_that_is_refused_is_not_in_the_lines(machine):
    code, answer = checked("00:17.0", "--root", machine)
    assert code == 4
    assert answer["snippets"] == {"xl": [], "xl.options": [], "xen-pciback.hide": "", "xen": []}
    assert "xen-pciback.hide" not in run("00:17.0", "--root", machine)[1]


def test_what_goes_along_is_named(machine):
    """The NIC and the USB controller share a region; on the USB controller is a disk with /srv on it."""
    stick = "../../devices/pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0/host1/target1:0:0/1:0:0:0/block/sdb"
    put_link(machine / "sys/class/block/sdb", stick)
    put_link(machine / "sys/dev/block/8:16", stick)
    with (machine / "proc/self/mountinfo").open("a") as mounts:
        mounts.write("30 25 8:16 / /srv rw - ext4 /dev/sdb rw\n")
    reasons = {
        reason["code"]: reason
        for each in checked("03:00.0", "--root", machine)[1]["functions"]
        for reason in each["reasons"]
    }
    assert reasons["goes-along"]["verdict"] == "warn"
    assert "0000:00:14.0 (the file system at /srv (through sdb), disk sdb)" in reasons["goes-along"]["text"]
    assert verdicts(checked("00:14.0", "--root", machine)[1])["00:14.0"] == [
        "warn", "reserved-shared", "mounted", "goes-along",
    ]  # fmt: skip


def test_the_line_for_xen(tmp_path):
    """A Marvell SATA controller of which DMA comes from function 1."""
    add(tmp_path, "pci0000:00/0000:00:03.0", reset_method="flr\n", vendor="0x1b4b\n", device="0x9230\n")
    (tmp_path / "sys/devices/pci0000:00/0000:00:03.0/config").write_bytes(
        config(vendor=0x1B4B, device=0x9230)
    )
    code, out = run("00:03.0", "--root", tmp_path)
    assert code == 4
    assert "dma-alias: its DMA carries the id of 0000:00:03.1, a phantom function" in out
    assert "For Xen's command line, if the option is not there already:\n    pci-phantom=00:03,1\n" in out
    assert checked("00:03.0", "--root", tmp_path)[1]["snippets"]["xen"] == ["pci-phantom=00:03,1"]


@pytest.fixture
def well(tmp_path):
    """A machine of which everything is known, and nothing speaks against its only function."""
    data = bytearray(conventional(RawFunction(Sbdf(0, 0, 3, 0), config())).config)
    add(tmp_path, "pci0000:00/0000:00:03.0", config=bytes(data.ljust(4096, b"\0")), reset_method="flr\n")
    put_tables(tmp_path, DMAR=good_dmar(), APIC=madt(2))
    put_xen(tmp_path, capabilities="xen-3.0-x86_64 hvm-3.0-x86_64")
    add(tmp_path, "pci0000:00/0000:00:17.0", **{"class": "0x010601\n"})
    disk = "../../devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2"
    put_link(tmp_path / "sys/dev/block/8:2", disk)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/mountinfo").write_text("25 1 8:2 / / rw - ext4 /dev/sda2 rw\n")
    (tmp_path / "proc/iomem").write_text("00100000-7affffff : System RAM\n7b000000-7fffffff : Reserved\n")
    (tmp_path / "sys/class/tty/console").mkdir(parents=True)
    (tmp_path / "sys/class/tty/console/active").write_text("tty0\n")
    (tmp_path / "sys/class/net").mkdir()
    return tmp_path


def test_all_is_well(well):
    code, answer = checked("00:03.0", "--root", well)
    (function,) = answer["functions"]
    assert (code, function["verdict"], function["unknown"]) == (0, "ok", ["what Xen knows"])
    assert function["guests"] == {"pv": "ok", "hvm": "ok", "pvh": "refuse"}
    assert function["reasons"] == []


@pytest.mark.parametrize("kind", ["pvh", "pv", "bare"])
def test_what_missing_tables_mean(tmp_path, kind):
    """No DMAR or IVRS is no IOMMU, but in a PVH dom0, which is not shown them."""
    add(tmp_path, "pci0000:00/0000:00:03.0", reset_method="flr\n")
    tables = tmp_path / "sys/firmware/acpi/tables"
    tables.mkdir(parents=True)
    (tables / "FACP").write_bytes(bytes(64))
    if kind != "bare":
        (tmp_path / "sys/hypervisor").mkdir()
        (tmp_path / "sys/hypervisor/guest_type").write_text(kind.upper() + "\n")
    (function,) = checked("00:03.0", "--root", tmp_path)[1]["functions"]
    assert (function["verdict"], "IOMMU" in function["unknown"]) == (
        ("unknown", True) if kind == "pvh" else ("refuse", False)
    )


def test_a_resource_line_and_its_place(machine):
    nic = machine / "sys/devices" / PORT / "0000:03:00.0"
    (nic / "config").write_bytes(config(command=2, bars=(0x7000_0000,)))
    (nic / "resource").write_text(LINE.format(0x7000_0000, 0x7001_FFFF) + 12 * EMPTY_LINE)
    reasons = verdicts(checked("03:00.0", "--root", machine)[1])["03:00.0"]
    assert reasons[:3] == ["refuse", "bar-outside-window", "bar-over-ram"]


@pytest.fixture
def guest(tmp_path):
    """Write a guest's configuration file."""

    def write(text):
        path = tmp_path / "web.cfg"
        path.write_text(text)
        return path

    return write


def test_the_lines_of_the_policy_have_what_check_wants(machine, tmp_path, capsys):
    where = ["--root", str(machine), "--policy", str(tmp_path / "etc")]
    assert main(["policy", "add", "03:00.*", "00:14.0", "--guest", "web", *where]) == 0
    capsys.readouterr()
    assert main(["policy", "snippet", "--xl", *where]) == 0
    head, line = capsys.readouterr().out.splitlines()
    assert head == "# web.cfg"
    assert sorted(line[9:-3].split('", "')) == [
        "0000:00:14.0,rdm_policy=relaxed", "0000:03:00.0,rdm_policy=relaxed", "0000:03:00.1",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "device", "told"),
    [
        ("web", "03:00.0", ""),
        ("web", "03:00.1", "which the policy does not keep"),
        ("mail", "03:00.0", "the policy keeps this function for guest web"),
        ("mail", "03:00.1", ""),
    ],
)
def test_a_file_that_names_another_device_than_the_policy_keeps(machine, guest, tmp_path, name, device, told):
    kept = ["--root", str(machine), "--policy", str(tmp_path / "etc")]
    assert main(["policy", "add", "03:00.0", "--guest", "web", *kept]) == 0
    path = guest(f'name = "{name}"\ntype = "hvm"\npci = [ "{device}" ]\n')
    code, answer = checked("--xl", path, *kept)
    assert code == 4
    assert told in "".join(answer["guest"]["complaints"])
    assert bool(answer["guest"]["complaints"]) is bool(told)
    lines = answer["snippets"]["xl"] + [answer["snippets"]["xen-pciback.hide"]]
    assert any(device in line for line in lines) is not bool(told)  # the wrong line is not proposed again
    assert checked("--xl", path, "--root", machine)[1]["guest"]["complaints"] == []


FILE = """# the web server
name = "web"
type = "hvm"
pci = [ "03:00.*",  # both functions
        "00:14.0,permissive=1" ]
"""


def test_all_devices_of_a_guest_are_judged_together(machine, guest):
    code, answer = checked("--xl", guest(FILE), "--root", machine)
    assert code == 4
    assert answer["guest"] == {"file": str(guest(FILE)), "name": "web", "kind": "hvm", "complaints": []}
    assert verdicts(answer) == {
        "03:00.0": ["refuse", "reserved-shared", "address-may-shift", "xl-not-assignable"],
        "00:14.0": ["refuse", "reserved-shared", "xl-permissive", "xl-not-assignable"],
        "03:00.1": ["unknown", "address-may-shift", "xl-not-assignable"],
    }
    assert all(list(each["guests"]) == ["hvm"] for each in answer["functions"])
    line = 'pci = [ "03:00.*,rdm_policy=relaxed", "00:14.0,permissive=1,rdm_policy=relaxed" ]'
    assert answer["snippets"]["xl"] == [line]
    assert answer["snippets"]["xen-pciback.hide"] == "(0000:00:14.0)(0000:03:00.0)(0000:03:00.1)"
    better = FILE.partition("pci")[0] + line
    assert [
        each["verdict"] for each in checked("--xl", guest(better), "--root", machine)[1]["functions"]
    ] == ["unknown", "warn", "warn"]


def test_a_device_that_must_go_along_is_missing(machine, guest):
    answer = checked("--xl", guest('pci = [ "03:00.1" ]'), "--root", machine)[1]
    assert verdicts(answer)["03:00.1"] == [
        "warn", "device-split", "pv-guest-needs", "address-may-shift", "xl-not-assignable",
    ]  # fmt: skip
    assert answer["guest"]["kind"] == "pv"
    assert answer["guest"]["name"] is None


def test_a_guest_in_words(machine, guest):
    path = guest('name = "web"\ntype = "pvh"\nrdm = "policy=relaxed"\npci = [ "03:00.*" ]')
    code, out = run("--xl", path, "--root", machine)
    lines = out.splitlines()
    assert code == 4
    assert lines[0] == f"{path}: guest web, PVH"
    assert lines[1].startswith("    rdm= has a policy (relaxed), so xl ignores")
    assert "refuse  0000:03:00.0" in out
    assert "pvh-guest: xl gives no device to a PVH guest" in out


NOTHING = [
    # the file, exit code, what is said
    ('pci = [ "03:00.0"', 1, "line 1: expected , or ], found the end of the file"),
    ('pci = [ "03:00.0, permissive=1" ]', 1, "xl does not know the option ' permissive'"),
    ('pci = [ "04:00.0" ]', 6, "no function 04:00.0"),
    ('pci = [ "04:00.*,permissive=1" ]', 6, "no function 04:00.*"),
]


@pytest.mark.parametrize(("text", "code", "words"), NOTHING)
def test_a_file_that_cannot_be_judged_is_one_line(machine, guest, text, code, words, capsys):
    assert main(["check", "--xl", str(guest(text)), "--root", str(machine)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_a_device_that_is_absent_is_told_and_the_others_are_judged(machine, guest):
    path = guest('type = "hvm"\npci = [ "00:14.0,rdm_policy=relaxed", "04:00.0", "05:00.*,permissive=1" ]')
    code, answer = checked("--xl", path, "--root", machine)
    assert code == 4
    assert [each["sbdf"] for each in answer["functions"]] == ["0000:00:14.0"]
    assert [each.partition(" on this machine")[0] for each in answer["guest"]["complaints"]] == [
        "no function 04:00.0", "no function 05:00.*",
    ]  # fmt: skip
    assert all("xl does not start the guest" in each for each in answer["guest"]["complaints"])
    assert answer["snippets"]["xl"] == ['pci = [ "00:14.0,rdm_policy=relaxed" ]']


@pytest.mark.parametrize("more", [["03:00.0"], ["--guest", "hvm"]])
def test_the_file_says_which_functions_and_which_kind(machine, guest, more, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", "--xl", str(guest(FILE)), *more, "--root", str(machine)])
    assert ended.value.code == 2
    assert "give no SBDF and no --guest" in capsys.readouterr().err


def test_a_file_that_is_not_there(machine, capsys):
    assert main(["check", "--xl", "/nonexistent", "--root", str(machine)]) == 1
    assert capsys.readouterr().err == (
        "pcipt: /nonexistent: no such file or directory; `ls /` shows what is there\n"
    )


def test_an_item_with_a_name_leaves_no_empty_option_for_the_kernel(machine, guest):
    out = run("--xl", guest('name = "web"\npci = [ "name=nic" ]'), "--root", machine)[1]
    assert 'pci = [ "name=nic" ]' in out
    assert "xen-pciback.hide" not in out


def test_a_file_without_devices_is_degraded(machine, guest):
    code, answer = checked("--xl", guest('name = "web"'), "--root", machine)
    assert (code, answer["functions"], answer["snippets"]["xl"]) == (4, [], [])
    assert len(answer["guest"]["complaints"]) == 1
