"""`pcipt host`, and what check, status and release make of it."""

import io
import json
from contextlib import redirect_stdout

import pytest

from pcipt.cli.main import main
from tests.firmware.host_tables import good_dmar, good_ivrs, madt, put_tables, put_xen
from tests.trees import add

VTD = {"DMAR": good_dmar(), "APIC": madt(2)}
AMD = {"IVRS": good_ivrs(), "APIC": madt(2, 7)}  # IO-APIC 7 is not in the table


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:03.0", reset_method="flr\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/iomem").write_text("00100000-7affffff : System RAM\n7b000000-7fffffff : Reserved\n")
    return tmp_path


def run(command, root, *arguments):
    out = io.StringIO()
    with redirect_stdout(out):
        code = main([command, "--root", str(root), *arguments])
    return code, out.getvalue()


def told(command, root, *arguments):
    code, out = run(command, root, "--json", *arguments)
    answer = json.loads(out)
    assert answer.pop("version") == 1
    return code, answer


def test_a_host_that_can(root):
    put_xen(root)
    put_tables(root, **VTD)
    code, out = run("host", root)
    assert (code, out.splitlines()[:4]) == (
        0,
        [
            "Host: ok",
            "    dom0 PV, Xen 4.17.7, Linux 6.1.0-18-amd64",
            "    VT-d: used (by the firmware's tables; Xen was not asked), interrupts are remapped",
            "    devices for guests: pv yes, hvm yes, pvh no",
        ],
    )
    assert "        pv-guest-needs: " in out


def test_a_host_whose_table_xen_refuses(root):
    put_xen(root)
    put_tables(root, **AMD)
    code, out = run("host", root)
    lines = out.splitlines()
    assert (code, lines[0], lines[2]) == (
        4, "Host: refuse", "    AMD-Vi: not used (by the firmware's tables; Xen was not asked)",
    )  # fmt: skip
    assert lines[4].startswith("        ivrs-io-apic-missing: IVRS: the MADT has IO-APIC 7")
    assert lines[5].startswith("          -> ask the vendor for firmware; or boot Xen with ivrs_ioapic[7]=")
    assert lines[6].startswith("          -> for the vendor: ACPI table IVRS: ")


def test_the_object(root):
    put_xen(root)
    put_tables(root, **AMD)
    code, answer = told("host", root)
    assert (code, answer["verdict"], answer["dom0"], answer["xen"]) == (4, "refuse", "pv", "4.17.7")
    assert answer["iommu"] == {
        "kind": "AMD-Vi", "used": False, "interrupt_remapping": False, "source": "tables",
    }  # fmt: skip
    assert answer["guests"] == {"pv": "refuse", "hvm": "refuse", "pvh": "refuse"}
    first = answer["reasons"][0]
    assert (first["code"], first["place"]) == ("ivrs-io-apic-missing", "IVRS")
    assert first["cure"]
    assert first["vendor"]
    assert first["guests"] == ["pv", "hvm", "pvh"]
    assert (answer["unknown"], answer["findings"]) == ([], [])


def test_nothing_known_is_unknown(root):
    code, out = run("host", root)
    assert (code, out.splitlines()[0]) == (4, "Host: unknown")
    assert out.splitlines()[-1] == (
        "    Not known here: Xen's version, kind of dom0, tables of the IOMMU (DMAR, IVRS)."
    )


def test_a_place_that_is_no_machine(tmp_path, capsys):
    assert main(["host", "--root", str(tmp_path / "nowhere")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("pcipt: ")
    assert len(captured.err.splitlines()) == 1


# check


@pytest.mark.parametrize("tables", [AMD, {"APIC": madt(2)}, {"DMAR": good_dmar(width=0)}])
@pytest.mark.parametrize("guest", [(), ("--guest", "pv"), ("--guest", "hvm")])
def test_no_function_is_ok_on_a_host_that_cannot(root, tables, guest):
    put_xen(root)
    put_tables(root, **tables)
    code, answer = told("check", root, *guest)
    assert (code, answer["host"]["verdict"]) == (4, "refuse")
    assert {each["verdict"] for each in answer["functions"]} == {"refuse"}
    assert answer["snippets"]["xl"] == []


def test_check_without_an_address_begins_with_the_host_and_does_not_repeat_it(root):
    put_xen(root)
    put_tables(root, **AMD)
    lines = run("check", root)[1].splitlines()
    assert lines[0] == "Host: refuse"
    at = lines.index("refuse  0000:00:03.0")
    assert lines[at + 1] == "        ivrs-io-apic-missing: see the host above"
    assert lines[at - 1] == ""
    named = run("check", root, "00:03.0")[1].splitlines()
    assert named[0] == "refuse  0000:00:03.0"
    assert named[1].startswith("        ivrs-io-apic-missing: IVRS: the MADT has IO-APIC 7")


@pytest.mark.parametrize(
    ("release", "linux", "guest", "verdict", "codes"),
    [
        ("4.17.7", "6.12.0", None, "refuse", ["pvh-dom0"]),
        ("4.20.4", "6.11.2", "hvm", "refuse", ["pvh-dom0-linux"]),
        ("4.20.4", "6.12.0", "pv", "refuse", ["pvh-dom0-pv-guest"]),
        ("4.20.4", "6.12.0", "hvm", "warn", ["pvh-dom0-pin"]),
        ("4.20.4", "6.12.0", None, "warn", ["pvh-dom0-pin"]),
    ],
)
def test_check_judges_for_one_kind_of_guest_under_a_pvh_dom0(root, release, linux, guest, verdict, codes):
    put_xen(root, kind="PVH", xen=release, linux=linux)
    option = ["--guest", guest] if guest is not None else []
    (function,) = told("check", root, *option)[1]["functions"]
    assert function["verdict"] == verdict
    assert [each["code"] for each in function["reasons"]] == codes
    assert set(function["guests"]) == ({guest} if guest is not None else {"pv", "hvm", "pvh"})


def test_check_says_which_kinds_are_possible(root):
    put_xen(root, kind="PVH", xen="4.20.4", linux="6.12.0")
    assert "warn    0000:00:03.0  (hvm guests only)" in run("check", root)[1].splitlines()


def test_check_for_a_pv_guest_tells_what_it_needs(root):
    put_xen(root)
    put_tables(root, **VTD)
    out = run("check", root, "--guest", "pv", "00:03.0")[1]
    assert "e820_host=1" in out
    assert "swiotlb" in out
    assert "e820_host" not in run("check", root, "--guest", "hvm", "00:03.0")[1]


def test_a_pvh_guest_cannot_be_asked_about(root, capsys):
    with pytest.raises(SystemExit):
        main(["check", "--guest", "pvh", "--root", str(root)])
    assert "pv" in capsys.readouterr().err
