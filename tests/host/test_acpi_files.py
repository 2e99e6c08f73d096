import os

import pytest

from pcipt.errors import InputError
from pcipt.host.acpi_files import MAX_FILES, MAX_SIZE, read_table_directory, read_table_file, read_tables
from pcipt.host.files import TABLES


@pytest.fixture
def root(tmp_path):
    home = tmp_path / TABLES
    home.mkdir(parents=True)
    (home / "FACP").write_bytes(b"FACP")
    (home / "SSDT12").write_bytes(b"SSDT")
    (home / "data").mkdir()  # as the kernel has it
    (home / "dynamic").mkdir()
    return tmp_path


def names(reading):
    return [table.name for table in reading.tables]


def test_every_table_of_a_tree_is_read(root):
    reading = read_tables(str(root))
    assert [(table.name, table.data) for table in reading.tables] == [("FACP", b"FACP"), ("SSDT12", b"SSDT")]
    assert reading.findings == ()


def test_what_is_no_table_is_passed_over(root):
    home = root / TABLES
    os.mkfifo(home / "FIFO")
    (home / "APIC").symlink_to("/etc/hostname")
    (home / "notes.txt").write_text("x")
    assert names(read_tables(str(root))) == ["FACP", "SSDT12"]


def test_a_table_too_long_is_told(root):
    with (root / TABLES / "DSDT").open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    reading = read_tables(str(root))
    assert names(reading) == ["FACP", "SSDT12"]
    assert [finding.code for finding in reading.findings] == ["table-unread"]


def test_a_directory_is_read_but_for_what_iasl_leaves_there(tmp_path):
    for name in ("facp-fc000000.aml", "apic.dat", "XSDT", "facp-fc000000.dsl", "x.hex", ".hidden"):
        (tmp_path / name).write_bytes(b"data")
    assert names(read_table_directory(str(tmp_path))) == ["XSDT", "apic.dat", "facp-fc000000.aml"]


@pytest.mark.parametrize("read", [read_tables, read_table_directory])
def test_nothing_to_read_is_an_error(read, tmp_path):
    with pytest.raises(InputError):
        read(str(tmp_path))
    with pytest.raises(InputError):
        read(str(tmp_path / "absent"))


def test_too_many_files_are_refused(tmp_path):
    for number in range(MAX_FILES + 1):
        (tmp_path / f"t{number}").write_bytes(b"x")
    with pytest.raises(InputError):
        read_table_directory(str(tmp_path))


def test_one_file(tmp_path, monkeypatch):
    (tmp_path / "DMAR").write_bytes(b"DMAR\0")
    assert read_table_file(str(tmp_path / "DMAR")) == [b"DMAR\0"]
    monkeypatch.chdir(tmp_path)
    assert read_table_file("DMAR") == [b"DMAR\0"]
    for bad in (tmp_path / "absent", tmp_path):
        with pytest.raises(InputError):
            read_table_file(str(bad))
