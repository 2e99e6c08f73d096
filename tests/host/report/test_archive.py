"""Archives of reports: what is packed comes back, and what somebody sends does no harm."""

import io
import os
import tarfile

import pytest

from pcipt.errors import InputError
from pcipt.host.report import archive
from pcipt.host.report.archive import pack, unpack


@pytest.fixture
def packed(tmp_path):
    machine = tmp_path / "machine"
    (machine / "sys/devices").mkdir(parents=True)
    (machine / "sys/devices/config").write_bytes(b"\x86\x80")
    (machine / "sys/link").symlink_to("devices")
    (machine / "README.md").write_text("what it is")
    pack(str(machine), str(tmp_path / "it.tar.gz"))
    return tmp_path


def out(directory):
    (directory / "out").mkdir()
    return str(directory / "out")


def test_what_is_packed_comes_back(packed):
    root = unpack(str(packed / "it.tar.gz"), out(packed))
    assert os.path.basename(root) == "pcipt-report"
    with open(f"{root}/sys/link/config", "rb") as file:
        assert file.read() == b"\x86\x80"
    assert os.readlink(f"{root}/sys/link") == "devices"


def test_no_owner_and_no_time_is_told_and_the_same_gives_the_same(packed):
    with tarfile.open(packed / "it.tar.gz") as tar:
        assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in tar} == {(0, 0, "", "", 0)}
    pack(str(packed / "machine"), str(packed / "again.tar.gz"))
    assert (packed / "again.tar.gz").read_bytes() == (packed / "it.tar.gz").read_bytes()
    assert (packed / "it.tar.gz").stat().st_mode & 0o777 == 0o600


def test_a_file_that_exists_is_kept(packed):
    before = (packed / "it.tar.gz").read_bytes()
    with pytest.raises(InputError, match="exists"):
        pack(str(packed / "machine"), str(packed / "it.tar.gz"))
    assert (packed / "it.tar.gz").read_bytes() == before
    assert not (packed / "it.tar.gz.part").exists()


def sent(path, *members):
    """Make an archive of members: (name, content) or (name, None, target of a link)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content, *target in members:
            member = tarfile.TarInfo(name)
            if target:
                member.type, member.linkname = tarfile.SYMTYPE, target[0]
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"x")],
        [("/etc/evil", b"x")],
        [("a/../../evil", b"x")],
        [("sys", None, ".."), ("sys/evil/link", None, "x")],
        [("a", None, ".."), ("a/evil", None, "x")],
    ],
)
def test_nothing_is_written_outside(tmp_path, members):
    file = sent(tmp_path / "sent.tar.gz", *members)
    with pytest.raises(InputError):
        unpack(file, out(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["out", "sent.tar.gz"]


def test_a_file_through_a_link_is_written_inside(tmp_path):
    """Files come first: the link that stood before it in the archive finds its place taken."""
    file = sent(tmp_path / "sent.tar.gz", ("sys", None, ".."), ("sys/evil", b"x"))
    with pytest.raises(InputError):
        unpack(file, out(tmp_path))
    assert not (tmp_path / "evil").exists()


def test_too_much_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "BYTES", 10)
    file = sent(tmp_path / "sent.tar.gz", ("sys/a", b"12345678"), ("sys/b", b"12345678"))
    with pytest.raises(InputError, match="not safe"):
        unpack(file, out(tmp_path))


def test_too_many_members(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MEMBERS", 2)
    file = sent(tmp_path / "sent.tar.gz", *((f"sys/{number}", b"") for number in range(3)))
    with pytest.raises(InputError, match="too many"):
        unpack(file, out(tmp_path))


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03garbage"])
def test_what_is_no_archive_is_said(tmp_path, content):
    (tmp_path / "it").write_bytes(content)
    with pytest.raises(InputError, match=r"no archive|no machine"):
        unpack(str(tmp_path / "it"), out(tmp_path))


def test_an_archive_without_a_machine(tmp_path):
    file = sent(tmp_path / "sent.tar.gz", ("notes", b"x"))
    with pytest.raises(InputError, match="no recorded machine"):
        unpack(file, out(tmp_path))
