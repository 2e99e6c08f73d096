import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from pcipt.cli.main import main
from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.pci.finding import NOTES
from tests.firmware.reserved_tables import dmar, drhd, ivmd, ivrs, madt, rmrr, scope
from tests.machines import config, iommu
from tests.trees import DATA, REPO, add

PORT = "pci0000:00/0000:00:1c.0"
GRAPHICS, BEHIND = scope(0, (2, 0)), scope(0, (0x1C, 0), (0, 0))
TABLE = dmar(drhd(), rmrr(0x7B00_0000, 0x7B00_FFFF, GRAPHICS), rmrr(0x7C00_0000, 0x7C00_0FFF, BEHIND))


def run(*arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main(["rmrr", *map(str, arguments)])
    return code, out.getvalue()


def told(*arguments):
    code, out = run(*arguments, "--json")
    answer = json.loads(out)
    assert answer["version"] == 1
    return code, answer


def file_of(tmp_path, data, name="table.bin"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.fixture
def machine(tmp_path):
    root = tmp_path / "machine"
    add(root, "pci0000:00/0000:00:02.0")
    add(root, PORT, config=config(header=1, class_code=0x060400, buses=(0, 3, 3)))
    add(root, f"{PORT}/0000:03:00.0")
    (root / "sys/firmware/acpi/tables").mkdir(parents=True)
    (root / "sys/firmware/acpi/tables/FACP").write_bytes(build_table(Header("FACP", 1), b""))
    (root / "proc").mkdir()
    return root


def table_in(root, data, name="DMAR"):
    (root / "sys/firmware/acpi/tables" / name).write_bytes(data)


def test_a_table_of_another_machine(tmp_path):
    path = file_of(tmp_path, TABLE)
    code, answer = told("--table", path)
    assert (code, answer["source"], answer["findings"]) == (0, str(path), [])
    first, second = answer["regions"]
    assert (first["base"], first["limit"], first["pages"], first["segment"]) == (
        "0x7b000000",
        "0x7b00ffff",
        16,
        0,
    )
    assert first["scopes"] == [{"type": "endpoint", "bus": 0, "path": [[2, 0]], "sbdf": "0000:00:02.0"}]
    assert second["scopes"][0]["sbdf"] is None  # no machine to follow the path on
    assert {first["mapped"], second["mapped"]} == {"unknown"}


def test_a_table_followed_on_a_recorded_machine(machine, tmp_path):
    code, answer = told("--table", file_of(tmp_path, TABLE), "--root", machine)
    assert code == 0
    assert [region["devices"][0]["sbdf"] for region in answer["regions"]] == ["0000:00:02.0", "0000:03:00.0"]


def as_text(table):
    rows = "".join(f"    {at:04X}: {table[at : at + 16].hex(' ')}  ..\n" for at in range(0, len(table), 16))
    return f"{table[:4].decode()} @ 0x0000000000000000\n{rows}\n"


def test_a_table_as_text_is_the_table(tmp_path):
    raw = told("--table", file_of(tmp_path, TABLE))
    text = told("--table", file_of(tmp_path, as_text(TABLE).encode("utf-16"), "text"))
    assert text[1]["regions"] == raw[1]["regions"]
    assert text[0] == raw[0] == 0


def test_of_all_tables_of_acpidump_those_with_regions_are_taken(tmp_path):
    other = build_table(Header("FACP", 1), b"")
    text = as_text(other) + as_text(TABLE) + as_text(other)
    assert len(told("--table", file_of(tmp_path, text.encode()))[1]["regions"]) == 2


@pytest.mark.parametrize(("text", "said"), [
    ('[000h 0000   4]   Signature : "DMAR"\n', "iasl"),
    ("hello\n", "is a text and no hexdump"),
    (as_text(build_table(Header("FACP", 1), b"")) * 2, "has the tables 'FACP', 'FACP'; expected"),
    (as_text(TABLE).replace("    0020:", "x"), "a row is missing"),
])  # fmt: skip
def test_a_text_that_is_no_table_is_one_line(tmp_path, capsys, text, said):
    assert main(["rmrr", "--table", str(file_of(tmp_path, text.encode()))]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err


def test_several_tables(tmp_path):
    one, other = (
        file_of(tmp_path, TABLE),
        file_of(tmp_path, ivrs(ivmd(0x21, 1, 16, 0, 0x1000, 0x1000)), "ivrs"),
    )
    for arguments in (("--table", one, other), ("--table", one, "--table", other)):
        answer = told(*arguments)[1]
        assert [region["kind"] for region in answer["regions"]] == ["rmrr", "rmrr", "ivmd-unity"]
        assert answer["source"] == f"{one}, {other}"


def test_a_recorded_machine(machine):
    table_in(machine, TABLE, "RMAD")
    (machine / "proc/iomem").write_text("00100000-7bffffff : System RAM\n")
    (machine / "sys/hypervisor").mkdir()
    (machine / "sys/hypervisor/guest_type").write_text("PV\n")
    code, answer = told("--root", machine)
    assert (code, answer["source"]) == (4, "sys/firmware/acpi/tables/RMAD")
    first, second = answer["regions"]
    assert [finding["code"] for finding in first["findings"]] == ["region-over-ram"]
    assert second["devices"] == [{"sbdf": "0000:03:00.0", "present": True, "owner": "unknown"}]
    assert {first["mapped"], second["mapped"]} == {"not-applicable"}  # nothing is mapped for a PV dom0


NONE = [
    # guest type, whether there are other tables -> exit code, what is said
    ("PV", True, 0, []),
    ("", True, 0, []),  # no Xen
    ("PVH", True, 4, ["no-tables"]),  # a PVH dom0 is not shown them
    ("PV", False, 4, ["no-tables"]),
]


@pytest.mark.parametrize(("kind", "others", "code", "codes"), NONE)
def test_no_region(machine, kind, others, code, codes):
    if kind:
        (machine / "sys/hypervisor").mkdir()
        (machine / "sys/hypervisor/guest_type").write_text(kind + "\n")
    if not others:
        (machine / "sys/firmware/acpi/tables/FACP").unlink()
    found, answer = told("--root", machine)
    assert (found, answer["regions"], answer["source"]) == (code, [], "none")
    assert [finding["code"] for finding in answer["findings"]] == codes


def test_what_only_describes_a_machine_is_no_trouble(tmp_path):
    shared = dmar(drhd(), rmrr(0x7000_0000, 0x7BFF_FFFF, GRAPHICS, BEHIND), flags=0)
    code, answer = told("--table", file_of(tmp_path, shared))
    assert code == 0
    assert [each["code"] for each in answer["regions"][0]["findings"]] == [
        "region-large",
        "region-shared",
    ]
    assert [each["code"] for each in answer["findings"]] == ["dmar-no-interrupt-remapping"]


def with_memory(root, *entries):
    """Give the machine a memory map of (start, end, Linux's name of the type)."""
    for number, values in enumerate(entries):
        at = root / f"sys/firmware/memmap/{number}"
        at.mkdir(parents=True)
        for name, value in zip(("start", "end", "type"), values, strict=True):
            (at / name).write_text(f"{value:#x}\n" if isinstance(value, int) else f"{value}\n")


RAM = (0, 0x7FFF_FFFF, "System RAM")
OVER_RAM = "dmar-region-over-ram"


@pytest.mark.parametrize(
    ("version", "code", "codes", "iommu"),
    [
        ("4.18.6", 4, [], "yes"),
        ("4.19.0", 4, [OVER_RAM], "no"),
        ("4.22.0", 4, [OVER_RAM], "no"),
        (None, 4, [OVER_RAM] * 2, "unknown"),  # both regions
    ],
)
def test_what_xen_would_make_of_the_table(machine, version, code, codes, iommu):
    table_in(machine, TABLE)
    table_in(machine, madt(), "APIC")
    with_memory(machine, RAM)
    options = ["--xen", version] if version is not None else []
    found, answer = told("--root", machine, *options)
    assert (found, [each["code"] for each in answer["findings"]]) == (code, codes)
    (acceptance,) = answer["acceptance"]
    assert (acceptance["kind"], acceptance["iommu"]) == ("VT-d", iommu)
    assert acceptance["unknown"] == (["Xen's version"] if version is None else [])
    assert all("does not use VT-d" in each["text"] for each in answer["findings"])


def test_the_version_is_that_of_the_recording(machine):
    table_in(machine, TABLE)
    with_memory(machine, RAM)
    at = machine / "sys/hypervisor/version"
    at.mkdir(parents=True)
    for name, value in (("major", "4"), ("minor", "17"), ("extra", ".7")):
        (at / name).write_text(value + "\n")
    assert told("--root", machine)[1]["findings"] == []
    assert OVER_RAM in [each["code"] for each in told("--root", machine, "--xen", "4.19.0")[1]["findings"]]


def test_io_apics_of_the_madt_are_held_against_the_table(machine, tmp_path):
    table_in(machine, ivrs(), "IVRS")
    table_in(machine, madt(0, 1), "APIC")
    add(machine, "pci0000:00/0000:00:00.2", config=iommu().config)
    code, out = run("--root", machine, "--xen", "4.20.4")
    assert code == 4
    assert "ivrs-io-apic-missing: IVRS: the MADT has IO-APIC 1, and the table does not name it" in out
    assert "Xen refuses the table and does not use AMD-Vi" in out
    assert "ivrs_ioapic[1]=" in out
    (machine / "xen").mkdir()
    (machine / "xen/info").write_text("xen_commandline : ivrs_ioapic[1]=00:14.1 loglvl=all\n")
    assert run("--root", machine, "--xen", "4.20.4")[0] == 0  # Xen was told where it is
    (machine / "xen/info").write_text("xen_commandline : ivrs_ioapic[2]=00:14.1\n")
    assert run("--root", machine, "--xen", "4.20.4")[0] == 4
    table_in(machine, madt(0), "APIC")
    code, answer = told("--root", machine, "--xen", "4.20.4")
    assert (code, answer["findings"]) == (0, [])
    assert answer["acceptance"] == [{"kind": "AMD-Vi", "iommu": "yes", "interrupts": "yes", "unknown": []}]
    code, answer = told("--table", file_of(tmp_path, ivrs()), "--xen", "4.20.4")  # the MADT is not known
    assert (code, answer["acceptance"][0]["iommu"]) == (0, "unknown")
    assert answer["acceptance"][0]["unknown"] == ["the MADT"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too few for the header"),
        (b"DMAR", "too few for the header"),
        (build_table(Header("SSDT", 1), b""), "is a table 'SSDT'; expected DMAR, RMAD, XMAR, IVRS"),
    ],
)
def test_what_is_no_such_table(tmp_path, data, words, capsys):
    assert main(["rmrr", "--table", str(file_of(tmp_path, data))]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_a_damaged_table_is_told_with_its_offset(tmp_path):
    code, answer = told("--table", file_of(tmp_path, TABLE[:-4]))
    assert code == 4
    assert [finding["code"] for finding in answer["findings"]] == [
        "acpi-length",
        "acpi-checksum",
        "acpi-entry",
    ]
    assert answer["acceptance"][0]["unknown"] == ["the whole table"]
    assert all("0x" in finding["text"] for finding in answer["findings"][::2])


def test_the_words(tmp_path):
    table = dmar(
        rmrr(0x7B00_0000, 0x7B00_FFFF, GRAPHICS),
        rmrr(0x7C00_0000, 0x7C00_0FFF, BEHIND, scope(0xF0, (31, 7), kind=3)),
        rmrr(0x7D00_0000, 0x7D00_0FFF),
    )
    everybody = ivrs(ivmd(0x20, 8, 0, 0, 0x1000, 0x1000))
    code, out = run("--table", file_of(tmp_path, table), file_of(tmp_path, everybody, "b"))
    assert code == 4
    lines = out.splitlines()
    assert lines[0].split() == ["0x7b000000-0x7b00ffff", "16", "pages", "rmrr", "unknown", "0000:00:02.0"]
    assert lines[1].endswith("endpoint at bus 00 1c.0-00.0, ioapic at bus f0 1f.7")
    assert lines[2].startswith("    region-shared: it is shared by 2 functions")
    assert (
        lines[3] == "        -> `pcipt rmrr` lists the devices of the region: give all of them to one guest"
    )
    assert lines[4].endswith("nobody")
    assert lines[5] == "    region-no-scope: it names no device: Xen drops it"
    assert "`pcipt report`" in lines[6]
    assert "all of 0000:00:00.0-0000:ff:1f.7" in lines[7]


def test_of_several_tables_the_one_with_the_finding_is_named(tmp_path):
    good = file_of(tmp_path, dmar(drhd(), rmrr(0x7B00_0000, 0x7B00_FFFF, GRAPHICS)), "good")
    bad = file_of(tmp_path, dmar(b"\x01\x00\x00\x00"), "bad")
    assert f"acpi-entry: {bad}: at 0x30: " in run("--table", good, bad)[1]
    assert "acpi-entry: at 0x30: " in run("--table", bad)[1]


def test_who_is_absent_and_findings_of_the_table(machine):
    table_in(machine, dmar(rmrr(0x7B00_0000, 0x7B00_FFFF, scope(0, (0x1A, 0))), b"\x01\x00\x00\x00"))
    code, out = run("--root", machine)
    assert code == 4
    assert "0000:00:1a.0 (absent)" in out
    assert "Finding: acpi-entry: at 0x" in out


@pytest.mark.parametrize("name", ["lab-pv", "lab-pvh"])
def test_fixtures(name):
    code, answer = told("--root", REPO / "fixtures/sysfs" / name)
    assert (code, answer["regions"]) == ((0, []) if name == "lab-pv" else (4, []))


def test_on_the_running_machine_the_daemon_knows_best(daemon):
    path, answers = daemon
    answers["Rmrr"] = {
        "source": "hypercall",
        "regions": [],
        "findings": [{"code": "buses-renumbered", "text": "x"}],
    }
    assert told("--socket", path) == (4, {"version": 1, **answers["Rmrr"]})


def recorded():
    found = sorted(DATA.glob("acpi/dmar/*.bin")) + sorted(DATA.glob("acpi/ivrs/*.bin"))
    return found or [Path("missing")]


@pytest.mark.parametrize("path", recorded(), ids=lambda path: path.stem[-30:])
def test_recorded_tables(path):
    if not path.exists():
        pytest.skip("../shared/data is not here")
    code, answer = told("--table", path)
    at_zero = any(region["base"] == "0x0" for region in answer["regions"])  # each PC has RAM there
    expected = {"dmar-region-over-ram"} if at_zero else set()
    assert {each["code"] for each in answer["findings"]} - NOTES == expected
    assert code == (4 if at_zero else 0)


@pytest.mark.parametrize("xen", ["4.17.7", "4.19.6", "4.20.4", "4.22.0"])
@pytest.mark.parametrize(("name", "option"), [("DMAR", "rmrr"), ("IVRS", "ivmd")])
def test_regions_of_xens_command_line_are_shown_and_checked(machine, name, option, xen):
    table_in(machine, dmar(drhd()) if name == "DMAR" else ivrs(), name)
    (machine / "xen").mkdir()
    line = f"{option}=7d100-7d101=0:2.0 {option}=zz"
    (machine / "xen/info").write_text(f"xen_commandline : {line}\n")
    code, answer = told("--root", machine, "--xen", xen)
    assert code == 4
    (region,) = answer["regions"]
    assert (region["base"], region["limit"]) == ("0x7d100000", "0x7d101fff")
    assert [each["sbdf"] for each in region["devices"]] == ["0000:00:02.0"]
    assert [each["code"] for each in region["findings"]] == ["region-added"]
    faults = [each["text"] for each in answer["findings"] if each["code"] == "region-option"]
    assert faults == [f"{option}=zz: 'zz' is no page number: Xen reads no further"]
