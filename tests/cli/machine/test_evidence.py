import argparse
from pathlib import Path

import pytest

from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.source import Source
from pcipt.cli.machine.told import regions_from_json
from pcipt.firmware.passthrough.verdict import CutSegment
from pcipt.firmware.regions.regions import Mapped
from pcipt.firmware.regions.state import with_owners
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.firmware.regions.view import regions_to_json
from pcipt.pci import parse_sbdf
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope
from tests.machines import bridge, function, machine
from tests.pvh import IO_APIC, mcfg, native_madt
from tests.trees import add

NIC = parse_sbdf("00:03.0")


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "machine"
    add(place, "pci0000:00/0000:00:03.0")
    return str(place)


def evidence(root, path):
    return gather(Source(argparse.Namespace(root=root, dump=None)), root, path)


def test_tables_beneath_the_root(root):
    home = Path(root, "sys/firmware/acpi/tables")
    home.mkdir(parents=True)
    (home / "IVRS").write_bytes(ivrs(ivmd(0x21, 1, 0x18, 0, 0x7000_0000, 0x1000)))
    (home / "APIC").write_bytes(native_madt(IO_APIC))
    (home / "MCFG").write_bytes(mcfg())
    found = evidence(root, None)
    assert found.iommu.ivrs is not None
    assert [str(region) for region in found.regions.of(NIC)] == ["0x70000000-0x70000fff"]
    assert [fixed.what for fixed in found.fixed] == ["MMCFG", f"IO-APIC {IO_APIC.apic_id}"]


def test_the_daemon_adds_what_xen_says(root, daemon):
    path, answers = daemon
    table = dmar(rmrr(0x7000_0000, 0x7000_0FFF, scope(0, (3, 0))))
    owned = with_owners(
        regions_from_tables([table], machine(function("00:03.0"))), {NIC: "guest 3"}, Mapped.BY_XEN
    )
    answers["Rmrr"] = regions_to_json(owned, "hypercall")
    leftover = {"sbdf": str(NIC), "code": "guest-leftover", "text": "it may reach fe200000"}
    answers["Guests"] = {"version": 1, "guests": [3], "findings": [leftover]}
    answers["Status"] = {
        "given_away": [{"sbdf": "0000:00:04.0", "owner": "quarantine"}],
        "findings": [
            {"sbdf": "0000:00:03.0", "code": "orphan", "text": ""},
            {"sbdf": "0000:00:03.0", "code": "bar-drift", "text": ""},  # not Xen's
            {"sbdf": None, "code": "orphan", "text": ""},
        ],
    }
    found = evidence(root, path)
    assert found.xen == {NIC: "orphan"}
    assert found.owners == {NIC: "guest 3", parse_sbdf("00:04.0"): "quarantine"}
    assert [finding.code for finding in found.guests[NIC]] == ["guest-leftover"]
    assert found.regions.regions == owned.regions


def test_orphans_behind_a_controller_are_not_the_controller_itself(root, daemon):
    path, answers = daemon
    about = {"sbdf": str(NIC), "text": "Xen lists 0000:e1:00.0 without an owner"}
    answers["Status"] = {
        "findings": [{"code": "orphan", **about}],
        "cut_segments": [{"controller": str(NIC), "panics": True, "functions": [], **about}],
    }
    found = evidence(root, path)
    assert found.xen == {}
    assert found.cut_segments == {NIC: CutSegment(about["text"], panics=True)}
    answers["Status"]["findings"].append({"sbdf": str(NIC), "code": "orphan", "text": "it is one, too"})
    assert evidence(root, path).xen == {NIC: "orphan"}


def test_physical_functions_whose_virtual_functions_are_not_sized(root, daemon):
    path, answers = daemon
    answers["Status"] = {"findings": [{"sbdf": str(NIC), "code": "vfs-unsized", "text": ""}]}
    assert evidence(root, path).unsized == {NIC}


def test_a_daemon_that_cannot_tell_leaves_it_unknown(root, daemon):
    found = evidence(root, daemon[0])
    assert (found.xen, found.regions) == (None, None)


def test_no_daemon_at_all(root):
    found = evidence(root, root + "/nobody")
    assert (found.xen, found.regions) == (None, None)


def test_regions_come_back_from_json_as_they_were():
    tables = [
        dmar(
            rmrr(0x7000_0000, 0x7000_0FFF, scope(0, (3, 0)), scope(0, (0x1C, 0), (1, 0), kind=2)), rmrr(2, 1)
        ),
        ivrs(ivmd(0x20, 8, 0, 0, 0x5000_0000, 0x1000)),
    ]
    regions = regions_from_tables(tables, machine(function("00:03.0"), bridge("00:1c.0", 3, 3)))
    assert regions_from_json(regions_to_json(regions, "")).regions == regions.regions
