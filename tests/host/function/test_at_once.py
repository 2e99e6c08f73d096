"""What is read of a function is the same whether one call reads all of its files or Python reads each."""

import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcipt.host import files, sysfs
from pcipt.host.files import Depth, Entry, Kind
from pcipt.host.function.at_once import FilesAtOnce
from pcipt.host.function.raw_function import files_of
from pcipt.host.sysfs import read_machine
from tests.machines import config
from tests.trees import a_directory, a_fifo, a_link, add

HOME = "pci0000:00/0000:00:1f.2"
CONTENTS = st.one_of(
    st.sampled_from(
        [None, "", "0x8086\n", "0x8086", "255\n", "-1\n", "0x", "8086\n", "0x1_0\n", " 0x1\n", "\0", "x" * 33]
    ),
    st.sampled_from(
        ["x" * files.PAGE, "x" * (files.PAGE + 1), config(), config(size=256), config(size=4096)]
    ),
    st.sampled_from(
        [a_directory, a_fifo, a_link("../vendor"), a_link("../../../../../.."), a_link("/etc/passwd")]
    ),
    st.sampled_from([a_link("../../bus/pci/drivers/ahci"), a_link("../0000:00:1f.0"), a_link("x" * 255)]),
    st.binary(max_size=80),
)
NAMES = sorted({entry.name for entry, _ in files_of(Depth.FULL)})


def read_both(root, depth, monkeypatch):
    """Return the functions of a tree as read with one call a function, and as read file by file."""
    found = []
    for least in (0, 1 << 30):
        monkeypatch.setattr(sysfs, "AT_ONCE_FROM", least)
        found.append(read_machine(str(root), depth))
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(NAMES), CONTENTS), st.sampled_from(Depth))
def test_both_ways_give_the_same(tmp_path_factory, monkeypatch, contents, depth):
    root = tmp_path_factory.mktemp("tree")
    add(root, HOME, contents)
    at_once, one_by_one = read_both(root, depth, monkeypatch)
    assert at_once == one_by_one
    assert len(at_once) == 1


def test_recorded_machines_are_read_alike(recorded, monkeypatch):
    at_once, one_by_one = read_both(recorded, Depth.FULL, monkeypatch)
    assert at_once == one_by_one
    assert len(at_once) > 1


def test_no_file_but_a_regular_one_is_opened(tmp_path):
    a_fifo(tmp_path / "fifo")
    a_directory(tmp_path / "directory")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "link").symlink_to("secret")
    entries = [Entry(name, Kind.TEXT, 32) for name in ("fifo", "directory", "link", "absent")]
    opened = os.open(tmp_path, os.O_PATH)
    try:
        found = FilesAtOnce([(entry, None) for entry in entries]).read(opened)
        again = FilesAtOnce([(Entry("link", Kind.LINK, files.PAGE), None)]).read(opened)
    finally:
        os.close(opened)
    assert found == {"absent": None}  # whoever needs the others reads them one by one, with an error
    assert again == {"link": b"secret"}
    assert stat.S_ISFIFO((tmp_path / "fifo").stat().st_mode)


@pytest.mark.parametrize("size", [0, 1, 32])
def test_a_file_has_all_bytes_up_to_its_limit(tmp_path, size):
    (tmp_path / "text").write_bytes(b"a" * size)
    (tmp_path / "long").write_bytes(b"a" * 33)
    wanted = [(Entry("text", Kind.TEXT, 32), None), (Entry("long", Kind.TEXT, 32), None)]
    wanted += [(Entry("long", Kind.BINARY, 64), 16)]
    opened = os.open(tmp_path, os.O_PATH)
    try:
        found = FilesAtOnce(wanted[:2]).read(opened), FilesAtOnce(wanted[2:]).read(opened)
    finally:
        os.close(opened)
    assert found == ({"text": b"a" * size}, {"long": b"a" * 16})
