from pcipt.host import files
from pcipt.host.files import Kind

SECRET = (
    "cmdline",
    "MSDM",
    "SLIC",
    "vpd",
    "uuid",
    "serial",
    "environ",
)  # passwords, licence keys, serial numbers


def all_entries():
    return (*files.FUNCTION_FILES, *files.GROUP_FILES, *files.MACHINE_FILES)


def test_no_listed_file_may_hold_a_secret():
    for entry in all_entries():
        assert not any(word.lower() in entry.name.lower() for word in SECRET), entry.name


def test_a_file_is_listed_once_and_stays_beneath_its_root():
    names = [entry.name for entry in all_entries()]
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.startswith("/")
        assert ".." not in name.split("/")


def test_files_of_a_function_are_read_in_one_go():
    for entry in files.FUNCTION_FILES:
        assert 0 < entry.limit <= files.PAGE
        assert "/" not in entry.name


def test_every_kind_is_in_use():
    assert {entry.kind for entry in all_entries()} == set(Kind)
