import json

import pytest

from pcipt.cli.main import main
from tests.machines import config
from tests.pvh import IO_APIC, any_table, native_fadt, native_madt, native_tables
from tests.trees import add


@pytest.fixture
def root(tmp_path):
    """A recorded PVH dom0: no table that it must not see."""
    add(tmp_path, "pci0000:00/0000:00:02.0", **{"class": "0x030000\n"}, config=config(class_code=0x030000))
    home = tmp_path / "sys/firmware/acpi/tables"
    home.mkdir(parents=True)
    for name, data in native_tables().items():
        if name not in ("HPET", "DMAR", "WAET", "MSDM"):
            (home / name).write_bytes(data)
    madt = bytearray(native_madt(IO_APIC))
    madt[40] = 0
    madt[9] = (madt[9] + 1) & 0xFF  # PCAT_COMPAT is gone
    (home / "APIC").write_bytes(madt)
    return tmp_path


def check(capsys, *arguments):
    code = main(["pvh", "check", "--json", *map(str, arguments)])
    said = capsys.readouterr()
    answer = json.loads(said.out) if said.out else None
    rows = answer["rows"] if answer else []
    return (
        code,
        {(r["verdict"], r["rule"], r["table"], r["offset"]) for r in rows if r["verdict"] != "ok"},
        answer,
    )


def put(root, name, data):
    (root / "sys/firmware/acpi/tables" / name).write_bytes(data)


def test_a_sound_machine_is_0(root, capsys):
    code, findings, answer = check(capsys, "--root", root, "--vcpus", 4)
    assert (code, findings) == (0, set())
    assert answer["domain"] == "hardware"
    assert len(answer["rows"]) > 20


@pytest.mark.parametrize(
    ("options", "verdicts"),
    [
        ([], {("warn", "forbidden", "TPM2", "0x0")}),  # nobody knows the version
        (["--xen", "4.21.0"], {("warn", "forbidden", "TPM2", "0x0")}),
        (["--xen", "4.21.1"], set()),
    ],
)
def test_the_release_decides_about_some_tables(options, verdicts, root, capsys):
    put(root, "TPM2", any_table("TPM2"))
    assert check(capsys, "--root", root, *options)[1] == verdicts
    home = root / "sys/hypervisor/version"
    home.mkdir(parents=True)
    for name, value in (("major", "4"), ("minor", "19"), ("extra", ".5")):
        (home / name).write_text(f"{value}\n")
    assert check(capsys, "--root", root, *options)[1] == (verdicts if options else set())


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("DMAR", any_table("DMAR", bytes(12)), ("error", "forbidden", "DMAR", "0x0")),
        ("IVRS", any_table("IVRS", bytes(12)), ("error", "forbidden", "IVRS", "0x0")),
        ("FACP", native_fadt()[:-1], ("error", "acpi-length", "FACP", "0x4")),
        ("FACP", native_fadt(IAPC_BOOT_ARCH=4), ("warn", "no-vga", "FACP", "0x6d")),  # there is a VGA
        ("APIC", b"APIC", ("error", "acpi-length", "APIC", "0x0")),
    ],
)
def test_findings_are_4_and_named(name, data, expected, root, capsys):
    put(root, name, data)
    code, findings, _ = check(capsys, "--root", root)
    assert code == 4
    assert expected in findings


@pytest.mark.parametrize(("kind", "told"), [("PV", True), ("HVM", True), ("PVH", False), ("", False)])
def test_other_kinds_of_domain_are_told(kind, told, root, capsys):
    if kind:
        (root / "sys/hypervisor").mkdir()
        (root / "sys/hypervisor/guest_type").write_text(f"{kind}\n")
    code, findings, _ = check(capsys, "--root", root)
    assert (("warn", "domain", "all", None) in findings) == told
    assert code == (4 if told else 0)


def test_io_apics_are_compared_with_the_memory_map(root, capsys):
    (root / "proc").mkdir()
    (root / "proc/iomem").write_text("fec00000-fec00fff : System RAM\n")
    assert ("error", "io-apic", "APIC", "0x4c") in check(capsys, "--root", root)[1]


def test_whose_tables_they_are_can_be_said(root, capsys):
    code, findings, answer = check(capsys, "--root", root, "--domain", "guest")
    assert (code, answer["domain"]) == (4, "guest")
    assert ("error", "no-vga", "FACP", "0x6d") in findings


def test_a_file_that_is_no_table_is_found(tmp_path, capsys):
    (tmp_path / "notes").write_bytes(b"not a table")
    code, findings, _ = check(capsys, "--tables", tmp_path)
    assert code == 4
    assert ("error", "acpi-length", "not?", "0x0") in findings


@pytest.mark.parametrize("arguments", [["--tables", "absent"], ["--root", "absent"], ["--tables", "."]])
def test_nothing_to_check_is_1(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["pvh", "check", *arguments]) == 1
    assert capsys.readouterr().err.startswith("pcipt: ")
