import os
import stat

import pytest

from pcipt.errors import InputError
from pcipt.host import files
from pcipt.host.recorder import record_machine
from pcipt.host.sysfs import read_machine
from pcipt.pci import decode_machine
from pcipt.pci.json_view import json_from_function
from tests.trees import a_directory, a_fifo, a_link, add, put

ROOT_PORT = "pci0000:00/0000:00:1c.0"
LISTED = {entry.name for entry in files.FUNCTION_FILES}
MACHINE = {entry.name for entry in files.MACHINE_FILES}


def view(root):
    return [
        json_from_function(function)
        for function in decode_machine(read_machine(str(root))).functions.values()
    ]


def content(root):
    """Everything beneath a root: path -> bytes of a file, text of a link, None for a directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        found[name] = os.readlink(path) if path.is_symlink() else None if path.is_dir() else path.read_bytes()
    return found


@pytest.fixture
def machine(tmp_path):
    """A machine with a bridge, a driver, a group, tables, and files that must not be recorded."""
    root = tmp_path / "machine"
    add(root, ROOT_PORT, rom="not listed\n")
    home = add(
        root,
        f"{ROOT_PORT}/0000:01:00.0",
        driver=a_link("../../../../bus/pci/drivers/nvme"),
        iommu_group=a_link("../../../../kernel/iommu_groups/7"),
        serial="secret\n",
    )
    (home / "power").mkdir()
    for path, text in {
        "sys/kernel/iommu_groups/7/reserved_regions": "0x00000000fee00000 0x00000000feefffff msi\n",
        "sys/kernel/iommu_groups/8/reserved_regions": "nobody's\n",
        "sys/firmware/acpi/tables/DMAR": "DMAR table",
        "sys/firmware/acpi/tables/MSDM": "a licence key",
        "sys/hypervisor/type": "xen\n",
        "sys/hypervisor/uuid": "secret\n",
        "sys/bus/pci/slots/5/address": "0000:01:00\n",
        "sys/bus/pci/slots/5/power": "not listed\n",
        "proc/iomem": "00000000-00000fff : Reserved\n" * 5000,
        "proc/cmdline": "password=secret\n",
        "proc/sys/kernel/random/boot_id": "b\n",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        put(root / path, text)
    return root


def test_the_copy_reads_like_the_original(machine, tmp_path):
    copy = tmp_path / "copy"
    recorded = record_machine(str(machine), str(copy))
    assert view(copy) == view(machine)
    assert (recorded.functions, recorded.left_out) == (2, ())


def test_exactly_the_closed_list_is_copied(machine, tmp_path):
    copy = tmp_path / "copy"
    record_machine(str(machine), str(copy))
    for name, data in content(copy).items():
        if data is None or name == "README.md":
            continue
        assert data == content(machine)[name]
        base = name.rpartition("/")[2]
        assert (
            name in MACHINE or base in LISTED or name.startswith((files.DEVICES, files.GROUPS, files.SLOTS))
        ), name
    assert "sys/bus/pci/slots/5/address" in content(copy)
    assert "sys/bus/pci/slots/5/power" not in content(copy)
    assert "sys/kernel/iommu_groups/7/reserved_regions" in content(copy)
    for secret in ("MSDM", "uuid", "cmdline", "serial", "iommu_groups/8", "rom", "power"):
        assert not any(name.endswith(secret) or f"/{secret}/" in name for name in content(copy)), secret


def test_a_recording_recorded_again_is_the_same(machine, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    record_machine(str(machine), str(first))
    record_machine(str(first), str(second))
    assert content(first) == content(second)


def test_recordings_of_others_are_recorded_to_the_same_view(recorded, tmp_path):
    copy = tmp_path / "copy"
    record_machine(str(recorded), str(copy))
    assert view(copy) == view(recorded)


def test_the_live_machine_is_recorded_to_the_same_view(tmp_path):
    if not os.path.isdir("/sys/bus/pci/devices"):
        pytest.skip("this machine has no PCI")
    record_machine("/", str(tmp_path / "copy"))
    assert view(tmp_path / "copy") == view("/")


def test_an_empty_directory_is_taken_and_made_readable(machine, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    record_machine(str(machine), str(copy))
    assert stat.S_IMODE(copy.stat().st_mode) == 0o755
    assert (copy / "README.md").read_text().startswith("# ")


FULL = [
    ("a file", lambda path: (path.mkdir(), put(path / "x", ""))),
    ("a hidden file", lambda path: (path.mkdir(), put(path / ".x", ""))),
    ("no directory", lambda path: put(path, "x")),
]


@pytest.mark.parametrize(("why", "make"), FULL)
def test_a_place_that_is_taken_is_refused_and_left_alone(machine, tmp_path, why, make):
    copy = tmp_path / "copy"
    make(copy)
    before = content(tmp_path)
    with pytest.raises(InputError) as caught:
        record_machine(str(machine), str(copy))
    assert caught.value.path == str(copy)
    assert content(tmp_path) == before, why


def test_a_failure_leaves_nothing_behind(tmp_path):
    with pytest.raises(InputError):
        record_machine(str(tmp_path / "no machine"), str(tmp_path / "copy"))
    with pytest.raises(InputError):
        record_machine("/", str(tmp_path / "missing" / "copy"))
    assert content(tmp_path) == {}


def test_a_full_disk_is_an_error_and_leaves_nothing_behind(machine):
    full = "/dev/full"  # no directory can be made below it
    with pytest.raises(InputError):
        record_machine(str(machine), f"{full}/copy")


ODD = [
    # what is odd about a function, and what the copy then lacks
    ({"config": a_fifo}, "config"),
    ({"config": a_link("/dev/zero")}, "config"),
    ({"resource": "x" * 10_000}, "resource"),
    ({"driver": a_link("../../../../../../../../etc/shadow")}, "driver"),
    ({"driver": a_link("/etc/shadow")}, "driver"),
    ({"driver": "a file\n"}, "driver"),
    ({"vendor": a_directory}, "vendor"),
]


@pytest.mark.parametrize(("oddity", "lacking"), ODD)
def test_what_is_odd_is_left_out_and_told(tmp_path, oddity, lacking):
    root, copy = tmp_path / "root", tmp_path / "copy"
    add(root, ROOT_PORT, **oddity)
    recorded = record_machine(str(root), str(copy))
    assert [path for path, _ in recorded.left_out] == [f"sys/devices/{ROOT_PORT}/{lacking}"]
    assert not os.path.lexists(copy / "sys/devices" / ROOT_PORT / lacking)
    assert all(not path.is_symlink() or path.exists() for path in copy.rglob("*"))


ENTRIES = [
    # an entry of sys/bus/pci/devices, whether the copy has it too
    (a_link("../../../devices/pci0000:00/0000:00:1f.2"), True),  # dangling there, dangling here
    (a_link("/sys/bus"), False),
    (a_link("../../../../../../etc"), False),
    (a_link("0000:00:1f.2"), False),
    (a_link("../../../.."), False),  # the root of the tree itself: its files would land beside the copy
    ("a file\n", False),
]


@pytest.mark.parametrize(("entry", "kept"), ENTRIES)
def test_an_entry_that_leads_astray_leads_nowhere_in_the_copy(tmp_path, entry, kept):
    root, copy = tmp_path / "root", tmp_path / "copy"
    add(root, ROOT_PORT)
    put(root / "sys/bus/pci/devices/0000:00:1f.2", entry)
    recorded = record_machine(str(root), str(copy))
    assert recorded.functions == 1
    assert os.path.lexists(copy / "sys/bus/pci/devices/0000:00:1f.2") == kept
    if kept:
        assert view(copy) == view(root)


def test_two_entries_for_one_directory_are_both_recorded(tmp_path):
    root, copy = tmp_path / "root", tmp_path / "copy"
    add(root, ROOT_PORT)
    put(root / "sys/bus/pci/devices/0000:00:1d.0", a_link(f"../../../devices/{ROOT_PORT}"))
    assert record_machine(str(root), str(copy)).functions == 2
    assert view(copy) == view(root)


@pytest.mark.parametrize("group", ["..", "../../../../proc", "7x", ""])
def test_only_a_numbered_group_is_followed(tmp_path, group):
    root, copy = tmp_path / "root", tmp_path / "copy"
    add(root, ROOT_PORT, iommu_group=a_link(f"../../../kernel/iommu_groups/{group}"))
    (root / "sys/kernel/iommu_groups").mkdir(parents=True)
    put(root / "sys/kernel/type", "outside the list\n")
    record_machine(str(root), str(copy))
    assert not (copy / "sys/kernel").exists()
