"""Where what the host can do comes from: files, the daemon, xl."""

from argparse import Namespace

import pytest

from pcipt.cli.machine import host as machine_host
from pcipt.cli.machine import source as sources
from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.host import answers_of_xen, read_host
from pcipt.firmware.passthrough.host import IommuKind, Source
from pcipt.firmware.passthrough.host_view import host_to_json
from pcipt.firmware.passthrough.reasons import Guest, Verdict
from pcipt.host.recorder import record_machine
from pcipt.xen.releases import parse_version
from tests.firmware.host_tables import good_dmar, good_ivrs, madt, put_tables, put_xen
from tests.firmware.reserved_tables import dmar, drhd, rmrr, scope
from tests.machines import iommu, smbus
from tests.trees import add

BOTH = "xen-3.0-x86_64 hvm-3.0-x86_32 hvm-3.0-x86_64"


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "pci0000:00/0000:00:03.0")
    add(tmp_path, "pci0000:00/0000:00:00.2", config=iommu().config)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/iomem").write_text("00100000-7affffff : System RAM\n7b000000-7fffffff : Reserved\n")
    return tmp_path


def recorded(root):
    return read_host(str(root), None)


@pytest.mark.parametrize(
    ("tables", "kind"),
    [
        ({"DMAR": good_dmar(), "APIC": madt(2)}, IommuKind.VTD),
        ({"RMAD": good_dmar(), "APIC": madt(2)}, IommuKind.VTD),
        ({"IVRS": good_ivrs(), "APIC": madt(2)}, IommuKind.AMD_VI),
    ],
)
def test_a_recording_with_its_tables(root, tables, kind):
    put_tables(root, **tables)
    put_xen(root, capabilities=BOTH)
    host = recorded(root)
    assert (host.verdict, host.kind, host.source) == (Verdict.OK, kind, Source.TABLES)
    assert (host.dom0, host.xen, host.linux) == (Guest.PV, "4.17.7", "6.1.0-18-amd64")


@pytest.mark.parametrize("lacks", ["tables", "xen", "guest_type", "iomem and a region", "madt"])
def test_what_a_recording_lacks_gives_no_ok(root, lacks):
    if lacks != "xen":
        put_xen(root)
    if lacks != "tables":
        put_tables(root, IVRS=good_ivrs())
    if lacks not in {"tables", "madt"}:
        put_tables(root, APIC=madt(2))
    if lacks == "guest_type":
        (root / "sys/hypervisor/guest_type").unlink()
    if lacks == "iomem and a region":
        from tests.firmware.reserved_tables import ivmd

        put_tables(root, IVRS=good_ivrs(ivmd(0x21, 8, 0x18, 0, 0x7B00_0000, 0x1000)))
        (root / "proc/iomem").unlink()
    host = recorded(root)
    assert host.verdict is Verdict.UNKNOWN
    assert host.unknown


def test_a_recording_of_tables_alone(tmp_path):
    put_xen(tmp_path)
    put_tables(tmp_path, DMAR=good_dmar(), APIC=madt(2))
    assert recorded(tmp_path).verdict is Verdict.OK
    put_tables(tmp_path, DMAR=good_dmar(width=0))
    assert recorded(tmp_path).verdict is Verdict.REFUSE


def test_a_guest_is_no_dom0(root):
    put_xen(root)
    put_tables(root, DMAR=good_dmar(), APIC=madt(2))
    (root / "proc/xen/capabilities").write_text("\n")  # older Linux: empty in dom0 before xenfs is mounted
    assert recorded(root).dom0 is Guest.PV
    (root / "proc/xen/capabilities").write_text("something\n")
    host = recorded(root)
    assert (host.dom0, host.verdict) == (None, Verdict.UNKNOWN)


@pytest.mark.parametrize(
    ("capabilities", "pv", "hvm"),
    [
        (BOTH, "ok", "ok"),
        ("xen-3.0-x86_64", "ok", "refuse"),
        ("hvm-3.0-x86_64", "refuse", "ok"),
        (None, "ok", "ok"),
    ],
)
def test_the_kinds_of_guest_that_this_xen_runs(root, capabilities, pv, hvm):
    put_xen(root, capabilities=capabilities)
    put_tables(root, DMAR=good_dmar(), APIC=madt(2))
    guests = recorded(root).guests
    assert (guests[Guest.PV].value, guests[Guest.HVM].value) == (pv, hvm)


@pytest.mark.parametrize(
    ("release", "linux", "guests"),
    [
        ("4.17.7", "6.12.48", ("refuse", "refuse")),
        ("4.20.4", "6.1.0-18-amd64", ("refuse", "refuse")),
        ("4.20.4", None, ("refuse", "unknown")),
        ("4.20.4", "6.12.48+deb13-amd64", ("refuse", "unknown")),  # are interrupts remapped?
    ],
)
def test_a_recorded_pvh_dom0(root, release, linux, guests):
    put_xen(root, kind="PVH", xen=release, linux=linux)
    host = recorded(root)
    assert (host.used, host.source) == (True, Source.DOM0)
    assert (host.guests[Guest.PV].value, host.guests[Guest.HVM].value) == guests


XL = """#!/bin/sh
case $1 in
info) echo 'xen_commandline        : {line}'; echo 'virt_caps              : {caps}';;
dmesg) echo '(XEN) I/O virtualisation {iommu}'; echo '(XEN) Interrupt remapping enabled';;
esac
"""


@pytest.fixture
def xl(tmp_path, monkeypatch):
    """Give a function that makes the command xl say what it is told."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    monkeypatch.setattr("pcipt.host.toolstack._DIRECTORIES", ())

    def write(caps="pv hvm hvm_directio pv_directio hap", line="", iommu="enabled"):
        (directory / "xl").write_text(XL.format(caps=caps, line=line, iommu=iommu))
        (directory / "xl").chmod(0o755)

    return write


@pytest.mark.parametrize(
    ("said", "used", "verdict", "code"),
    [
        ({}, True, Verdict.OK, "pvh-guest"),
        ({"caps": "pv hvm hap"}, False, Verdict.REFUSE, "no-iommu"),
        ({"caps": "pv hvm hap", "line": "iommu=off"}, False, Verdict.REFUSE, "iommu-off"),
        ({"line": "iommu=no-intremap"}, True, Verdict.OK, "pvh-guest"),  # Xen says that it remaps
    ],
)
def test_xl_is_asked_where_no_daemon_runs(root, xl, said, used, verdict, code):
    put_xen(root)
    put_tables(root, DMAR=good_dmar(), APIC=madt(2))
    xl(**said)
    host = read_host(str(root), str(root / "nobody"))
    assert (host.used, host.source) == (used, Source.XEN)
    assert (host.verdict, host.reasons[0].code) == (verdict, code)


def recording_of(root, target):
    """Record what xl says beside the files of a machine."""
    record_machine(str(root), str(target), answers=answers_of_xen())
    return target


@pytest.mark.parametrize(
    ("said", "used", "verdict", "code"),
    [
        ({}, True, Verdict.OK, "pvh-guest"),
        ({"caps": "pv hvm hap"}, False, Verdict.REFUSE, "no-iommu"),
        ({"caps": "pv hvm hap", "line": "iommu=off"}, False, Verdict.REFUSE, "iommu-off"),
        ({"caps": "pv hvm hap", "line": "acpi=off"}, False, Verdict.REFUSE, "iommu-off"),
    ],
)
def test_a_recording_holds_what_xen_said(root, tmp_path_factory, xl, said, used, verdict, code):
    put_xen(root)
    put_tables(root, DMAR=good_dmar(), APIC=madt(2))
    xl(**said)
    target = recording_of(root, tmp_path_factory.mktemp("there") / "machine")
    live = read_host(str(root), str(root / "nobody"))
    xl(caps="pv", line="from another machine")
    host = recorded(target)
    assert host == live
    assert (host.used, host.source, host.boot is not None) == (used, Source.XEN, True)
    assert (host.verdict, host.reasons[0].code) == (verdict, code)
    again = tmp_path_factory.mktemp("again") / "machine"
    record_machine(str(target), str(again))
    assert recorded(again) == host


def test_without_xl_a_recording_has_no_answers(root, tmp_path, monkeypatch):
    monkeypatch.setattr(machine_host, "read_xl_info", dict)
    assert answers_of_xen() == {}


def test_a_recording_keeps_only_what_is_told_of_the_iommu(xl):
    xl(caps="pv hvm", line="iommu=verbose", iommu="enabled'; echo '(XEN) something else")
    kept = answers_of_xen()
    assert kept["xen/info"] == b"virt_caps : pv hvm\nxen_commandline : iommu=verbose\n"
    assert b"I/O virtualisation" in kept["xen/boot"]
    assert b"something else" not in kept["xen/boot"]


def test_xl_is_asked_once_for_all_that_a_check_needs(root, xl, monkeypatch):
    put_xen(root)
    put_tables(root, DMAR=dmar(drhd()), APIC=madt(2))
    xl(line="rmrr=0x7aff0=0:3.0")
    asked = []
    for name in ("read_xl_info", "read_console"):
        ask = getattr(machine_host, name)
        monkeypatch.setattr(machine_host, name, lambda name=name, ask=ask: asked.append(name) or ask())
    source = sources.Source(Namespace(root=str(root), dump=None))
    evidence = gather(source, str(root), str(root / "nobody"))
    assert [region.base for region in evidence.regions.regions] == [0x7AFF_0000]
    assert asked == ["read_xl_info", "read_console"]


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(("version", "used", "refused"), [("4.18.6", True, False), ("4.19.6", False, True)])
def test_another_version_of_xen(root, xl, version, used, refused, live):
    put_xen(root, xen="4.17.7")
    region = rmrr(0x0010_0000, 0x0010_0FFF, scope(0, (3, 0)))
    put_tables(root, DMAR=dmar(drhd(), region), APIC=madt(2))
    xl()
    host = read_host(str(root), str(root / "nobody") if live else None, parse_version(version))
    assert (host.xen, host.used, host.source) == (version, used, Source.TABLES)
    assert (host.verdict is Verdict.REFUSE) is refused
    assert host.findings == ()  # this Xen's own word is about another version


def test_what_depends_on_a_version_that_is_not_known_is_told(root):
    put_xen(root)
    (root / "sys/hypervisor/version/major").unlink()
    region = rmrr(0x0010_0000, 0x0010_0FFF, scope(0, (3, 0)))
    put_tables(root, DMAR=dmar(drhd(), region), APIC=madt(2))
    host = recorded(root)
    assert host.verdict is Verdict.UNKNOWN
    (reason,) = (each for each in host.reasons if each.code == "dmar-region-over-ram")
    assert (reason.verdict, "4.19.0" in reason.text) == (Verdict.WARN, True)


def test_without_xen_xl_is_not_asked(root, xl):
    xl()
    put_tables(root, DMAR=good_dmar(), APIC=madt(2))
    host = read_host(str(root), str(root / "nobody"))
    assert (host.source, host.verdict) == (Source.TABLES, Verdict.UNKNOWN)
    assert [each.what for each in host.unknown] == ["Xen, because this Linux does not run under it"]


def test_the_daemons_word_comes_first(root, daemon, xl):
    path, answers = daemon
    xl(caps="pv hvm")
    put_xen(root)
    put_tables(root, DMAR=good_dmar(), APIC=madt(2))
    expected = recorded(root)
    answers["Status"] = {"host": host_to_json(expected)}
    assert read_host(str(root), str(path)) == expected
    answers["Status"] = {"host": None}  # it has not asked Xen yet
    assert read_host(str(root), str(path)).used is False


@pytest.mark.parametrize("release", ["4.17.0", "4.17.7", "4.18.6", "4.19.6", "4.20.4", "4.21.2", "4.22.0"])
@pytest.mark.parametrize(
    ("southbridge", "line", "verdict"),
    [
        (smbus(), "", Verdict.REFUSE),
        (smbus(), "iommu=no-intremap", Verdict.UNKNOWN),  # interrupts are not remapped
        (smbus(), "iommu=no-amd-iommu-perdev-intremap", Verdict.OK),
        (smbus(mode=0), "", Verdict.OK),
        (smbus(size=64), "", Verdict.UNKNOWN),  # recorded without root
    ],
)
def test_a_recording_of_an_sp5100(root, release, southbridge, line, verdict):
    put_tables(root, IVRS=good_ivrs(), APIC=madt(2))
    put_xen(root, xen=release)
    ids = {"vendor": "0x1002\n", "device": "0x4385\n"}
    add(root, "pci0000:00/0000:00:14.0", config=southbridge.config, **ids)
    (root / "xen").mkdir()
    (root / "xen/info").write_text(f"xen_commandline : {line} \n")
    host = recorded(root)
    assert (host.verdict is Verdict.REFUSE, host.used) == (
        verdict is Verdict.REFUSE,
        {Verdict.REFUSE: False, Verdict.OK: True, Verdict.UNKNOWN: True if line else None}[verdict],
    )
    codes = {reason.code for reason in host.reasons}
    assert ("sp5100-combined-mode" in codes) is (verdict is Verdict.REFUSE)
    if not line and verdict is Verdict.UNKNOWN:
        assert "config space of the SP5100 0000:00:14.0" in [each.what for each in host.unknown]
