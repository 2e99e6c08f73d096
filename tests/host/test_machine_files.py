import pytest

from pcipt.host.files import MACHINE_FILES
from pcipt.host.machine_files import read_listed
from tests.trees import a_directory, a_fifo, a_link, put

DMAR = "sys/firmware/acpi/tables/DMAR"


@pytest.fixture
def tables(tmp_path):
    (tmp_path / "sys/firmware/acpi/tables").mkdir(parents=True)
    return tmp_path


CONTENTS = [
    ("DMAR table", b"DMAR table"),
    ("", b""),
    ("x" * 300_000, b"x" * 300_000),
    (None, None),
    (a_directory, None),
    (a_fifo, None),
    (a_link("/etc/hostname"), None),
    ("x" * ((1 << 20) + 1), None),  # no table is that long
]


@pytest.mark.parametrize(("content", "expected"), CONTENTS)
def test_a_listed_file_is_read_or_unknown(tables, content, expected):
    put(tables / DMAR, content)
    assert read_listed(str(tables), DMAR) == expected


def test_a_directory_that_leads_outside_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    put(outside / "DMAR", "not this machine's")
    root = tmp_path / "root"
    (root / "sys/firmware/acpi").mkdir(parents=True)
    (root / "sys/firmware/acpi/tables").symlink_to(outside)
    assert read_listed(str(root), DMAR) is None


def test_a_root_that_is_not_there_tells_nothing(tmp_path):
    assert read_listed(str(tmp_path / "gone"), DMAR) is None


@pytest.mark.parametrize("name", ["etc/shadow", "proc/cmdline", "sys/firmware/acpi/tables/MSDM"])
def test_what_is_not_on_the_list_cannot_be_read(tables, name):
    assert name not in {entry.name for entry in MACHINE_FILES}
    with pytest.raises(KeyError):
        read_listed(str(tables), name)
