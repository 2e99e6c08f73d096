import json
import os

import pytest

from pcipt.cli.main import main
from pcipt.firmware.acpi.build_table import Header
from pcipt.firmware.acpi.dsdt import build_dsdt, windows_for
from pcipt.host.sysfs import read_machine
from pcipt.pci import decode_machine
from tests.machines import config
from tests.pvh import any_table, disassemble, native_tables
from tests.trees import EMPTY_LINE, add

NIC_LINES = (
    "0x00000000feb00000 0x00000000feb1ffff 0x0000000000040200\n"
    "0x000000000000c000 0x000000000000c01f 0x0000000000040101\n" + 11 * EMPTY_LINE
)
IOMEM = """\
00000000-00000fff : Reserved
00001000-0009efff : System RAM
00100000-3fffffff : System RAM
7ffd8000-7fffffff : Reserved
"""


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "machine"
    add(root, "pci0000:00/0000:00:03.0", config=config(size=256, bars=(0xFEB0_0000, 0xC001), command=3),
        resource=NIC_LINES)  # fmt: skip
    home = root / "sys/firmware/acpi/tables"
    home.mkdir(parents=True)
    for name, data in native_tables().items():
        (home / name).write_bytes(data)
    (root / "proc").mkdir()
    (root / "proc/iomem").write_text(IOMEM)
    return root


def run(capsys, *arguments):
    code = main(["pvh", "tables", *map(str, arguments)])
    return code, capsys.readouterr()


def tables_in(directory):
    return {name.rpartition("-")[0]: (directory / name).read_bytes() for name in os.listdir(directory)}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ([], {"rsdp", "xsdt", "rsdt", "facp", "facp-rev1", "apic", "dsdt", "facs"}),
        (["--no-lapic"], {"rsdp", "xsdt", "rsdt", "facp", "facp-rev1", "dsdt", "facs"}),
        (["--io-apic"], {"rsdp", "xsdt", "rsdt", "facp", "facp-rev1", "apic", "dsdt", "facs"}),
    ],
)
def test_a_guests_tables_are_written_and_pass_the_check(options, names, tmp_path, capsys):
    out = tmp_path / "out"
    code, _ = run(capsys, "--domain", "guest", "--vcpus", 3, *options, "-o", out)
    assert (code, set(tables_in(out))) == (0, names)
    more = [*(["--io-apic"] if "--io-apic" in options else ["--vcpus=3"] if not options else [])]
    assert main(["pvh", "check", "--tables", str(out), *more]) == 0
    assert capsys.readouterr().out.startswith("Tables of a guest\n")


def test_a_passed_through_function_has_its_windows(root, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--domain", "guest", "--vcpus", 1, "--root", root, "--function", "00:03.0", "-o", out]
    assert run(capsys, *arguments)[0] == 0
    machine = decode_machine(read_machine(str(root)))
    expected = build_dsdt(Header("DSDT", 2), 1, windows_for(machine.functions.values()))
    assert tables_in(out)["dsdt"] == expected
    text = disassemble(expected, tmp_path)
    assert "0xFEB00000" in text
    assert "0xC01F" in text


def test_the_hardware_domains_tables(root, tmp_path, capsys):
    out = tmp_path / "out"
    code, said = run(capsys, "--domain", "hardware", "--vcpus", 2, "--root", root, "-o", out, "--json")
    answer = json.loads(said.out)
    assert code == 0
    found = tables_in(out)
    assert set(found) == {"rsdp", "xsdt", "apic", "facp", "mcfg", "ssdt", "dsdt", "facs"}
    assert found["facp"] == native_tables()["FACP"]
    assert {each["name"] for each in answer["left_out"]} == {"APIC", "HPET", "DMAR", "MSDM", "WAET"}
    assert {each["signature"] for each in answer["tables"] if each["native"]} == {
        "FACP",
        "MCFG",
        "SSDT",
        "DSDT",
        "FACS",
    }
    made = [int(each["address"], 16) for each in answer["tables"] if not each["native"]]
    assert all(0x3FF0_0000 < at < 0x4000_0000 for at in made)  # the end of the last RAM below 4 GiB
    assert main(["pvh", "check", "--tables", str(out), "--vcpus", "2"]) == 0
    assert capsys.readouterr().out.startswith("Tables of a hardware domain\n")


@pytest.mark.parametrize(
    ("version", "option", "left_out"),
    [
        ((4, 20, ".2"), None, {"TPM2": "not yet in 4.20.2"}),
        ((4, 20, ".3"), None, {}),
        ((4, 17, ".7"), None, {"TPM2": "not yet in 4.17.7", "VFCT": "from 4.18.0 on, not yet in 4.17.7"}),
        ((4, 17, ".7"), "4.22.0", {}),
        ((4, 20, ".3-vendor"), None, {"TPM2": "whether this build of 4.20 does is not known"}),
        (None, None, {"TPM2": "is not known", "VFCT": "is not known"}),
    ],
)
def test_tables_go_by_the_release_of_xen(version, option, left_out, root, tmp_path, capsys):
    for signature in ("TPM2", "VFCT"):
        (root / "sys/firmware/acpi/tables" / signature).write_bytes(any_table(signature))
    if version is not None:
        home = root / "sys/hypervisor/version"
        home.mkdir(parents=True)
        for name, value in zip(("major", "minor", "extra"), version, strict=True):
            (home / name).write_text(f"{value}\n")
    out = tmp_path / "out"
    arguments = ["--domain", "hardware", "--vcpus", 2, "--root", root, "-o", out, "--json"]
    code, said = run(capsys, *arguments, *(["--xen", option] if option else []))
    told = {each["name"]: each["why"] for each in json.loads(said.out)["left_out"]}
    assert code == 0
    assert {"tpm2", "vfct"} - set(tables_in(out)) == {name.lower() for name in left_out}
    assert {name: why for name, why in told.items() if name in ("TPM2", "VFCT")} == {
        name: told[name] for name in left_out
    }
    assert all(says in told[name] for name, says in left_out.items())


def test_a_version_that_is_none_is_refused(root, tmp_path, capsys):
    arguments = ["--domain", "hardware", "--vcpus", 2, "--root", root, "-o", tmp_path / "out"]
    with pytest.raises(SystemExit) as caught:
        run(capsys, *arguments, "--xen", "new")
    assert caught.value.code == 2
    assert "version 'new' is not like 4.17.7" in capsys.readouterr().err


def test_a_recording_without_dsdt_says_so(root, tmp_path, capsys):
    (root / "sys/firmware/acpi/tables/DSDT").unlink()
    out = tmp_path / "out"
    code, said = run(capsys, "--domain", "hardware", "--vcpus", 2, "--root", root, "-o", out)
    assert code == 0
    assert "dsdt" not in tables_in(out)
    assert [line.split()[0] for line in said.out.splitlines() if "is not changed" in line] == ["DSDT"]
    assert main(["pvh", "check", "--tables", str(out)]) == 4
    assert "warn   DSDT" in capsys.readouterr().out


def test_without_a_memory_map_they_are_put_where_a_guests_are(root, tmp_path, capsys):
    (root / "proc/iomem").unlink()
    out = tmp_path / "out"
    assert run(capsys, "--domain", "hardware", "--vcpus", 1, "--root", root, "-o", out)[0] == 0
    assert (out / "apic-fc000000.aml").exists()


def test_a_full_directory_is_left_alone(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    code, said = run(capsys, "--domain", "guest", "--vcpus", 1, "-o", tmp_path)
    assert (code, said.out) == (1, "")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda root: (root / "sys/firmware/acpi/tables/FACP").unlink(), "FACP"),
        (lambda root: (root / "proc/iomem").write_text("00001000-00001fff : System RAM\n"), "no RAM"),
    ],
)
def test_what_cannot_be_built(break_it, why, root, tmp_path, capsys):
    break_it(root)
    code, said = run(capsys, "--domain", "hardware", "--vcpus", 1, "--root", root, "-o", tmp_path / "out")
    assert code == 1
    assert why in said.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("address", "code"), [("00:04.0", 6), ("00:20.0", 2)])
def test_functions_that_are_not_there(address, code, root, tmp_path, capsys):
    arguments = [
        "--domain",
        "guest",
        "--vcpus",
        1,
        "--root",
        root,
        "--function",
        address,
        "-o",
        tmp_path / "out",
    ]
    assert run(capsys, *arguments)[0] == code
