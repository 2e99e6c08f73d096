import errno
import os
import shutil
from pathlib import Path

import pytest

from pcipt.errors import InputError
from pcipt.host.sysfs import read_machine
from pcipt.host.tree import Tree, link_text, list_names, read_file, read_link, reason, stays_inside, text_of
from tests.trees import a_directory, a_fifo, a_link, put


@pytest.fixture
def root(tmp_path):
    """A tree with a file beside it that nothing may reach."""
    inside = tmp_path / "root"
    (inside / "a/b/c").mkdir(parents=True)
    (inside / "d").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (inside / "file").write_text("plain")
    for name, target in {
        "a/to-d": "../d",
        "a/twice": "to-d",
        "d/up-and-down": "../a/./b//c",
        "d/out": "../../outside",
        "d/far-out": "../../../../../../../etc",
        "d/absolute": "/etc",
        "d/self": "self",
        "d/ping": "pong",
        "d/pong": "ping",
        "d/nowhere": "../gone",
        "d/through-file": "../file/x",
        "d/back": "..",
    }.items():
        (inside / name).symlink_to(target)
    return inside


PATHS = [
    ("", ""),  # the root itself
    ("a/b/c", "a/b/c"),
    ("/a//b/./c/", "a/b/c"),  # empty and dot parts mean nothing
    ("a/b/../b/c/../..", "a"),
    ("a/to-d", "d"),
    ("a/twice", "d"),  # a link to a link
    ("d/up-and-down", "a/b/c"),
    ("d/back/a", "a"),  # .. in a link is the real parent
]


@pytest.mark.parametrize(("path", "names"), PATHS)
def test_a_path_is_followed_to_its_real_directory(root, path, names):
    with Tree(str(root)) as tree:
        directory = tree.enter(path)
        assert "/".join(tree.names) == names
        assert os.path.samestat(os.fstat(directory), os.stat(root / names))


STRAY = [
    ("..", errno.EXDEV),
    ("a/../../outside", errno.EXDEV),
    ("d/out", errno.EXDEV),
    ("d/far-out", errno.EXDEV),
    ("d/absolute", errno.EXDEV),  # an absolute link means the reader's root, not the recorded one
    ("d/self", errno.ELOOP),
    ("d/ping", errno.ELOOP),
    ("d/nowhere", errno.ENOENT),
    ("gone", errno.ENOENT),
    ("file", errno.ENOTDIR),
    ("d/through-file", errno.ENOTDIR),
    ("x" * 300, errno.ENAMETOOLONG),
    ("/".join(["deep"] * 201), errno.ENAMETOOLONG),  # descriptors are limited
]


@pytest.mark.parametrize(("path", "number"), STRAY)
def test_a_path_that_goes_astray_is_refused(root, path, number):
    (root / "/".join(["deep"] * 201)).mkdir(parents=True)
    with Tree(str(root)) as tree:
        with pytest.raises(OSError) as caught:
            tree.enter(path)
        assert caught.value.errno == number
        tree.enter("a/b")  # the cursor is still good
        assert tree.names == ("a", "b")


def test_moving_about_gives_the_same_as_starting_anew(root):
    places = ["a/b/c", "d", "a/b", "a/to-d", "", "d/up-and-down", "a/b/c", "d/back"]
    with Tree(str(root)) as moving:
        for place in places:
            with Tree(str(root)) as fresh:
                fresh.enter(place)
                moving.enter(place)
                assert moving.names == fresh.names


def test_no_descriptor_stays_open(root):
    before = len(os.listdir("/proc/self/fd"))
    with Tree(str(root)) as tree:
        tree.enter("a/b/c")
        for path, _ in STRAY[:9]:
            with pytest.raises(OSError):
                tree.enter(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["gone", "file", "nul\0byte"])
def test_a_root_that_is_no_directory_is_an_input_error(root, name):
    with pytest.raises(InputError) as caught:
        Tree(str(root / name))
    assert caught.value.path.endswith(name)


@pytest.fixture
def files(tmp_path):
    """A directory to read single files from, by descriptor."""
    opened = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield tmp_path, opened
    os.close(opened)


ODD_FILES = [
    (None, errno.ENOENT),
    (a_directory, errno.EMEDIUMTYPE),
    (a_fifo, errno.EMEDIUMTYPE),  # opening it would wait for a writer
    (a_link("/etc/hostname"), errno.EMEDIUMTYPE),
    (a_link("nowhere"), errno.EMEDIUMTYPE),
    ("x" * 33, errno.EFBIG),
    ("x" * (1 << 20), errno.EFBIG),  # one line of a megabyte
]


@pytest.mark.parametrize(("content", "number"), ODD_FILES)
def test_what_is_no_short_regular_file_is_refused(files, content, number):
    path, directory = files
    put(path / "file", content)
    with pytest.raises(OSError) as caught:
        read_file(directory, "file", 32)
    assert caught.value.errno == number


@pytest.mark.parametrize(("size", "limit"), [(33, 32), (4095, 32), (4097, 4096), (4097, 32)])
def test_a_file_that_is_too_long_is_refused_though_only_its_beginning_is_wanted(files, size, limit):
    path, directory = files
    (path / "file").write_bytes(bytes(size))
    with pytest.raises(OSError) as caught:
        read_file(directory, "file", limit, 8)
    assert caught.value.errno == errno.EFBIG


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_a_device_node_is_not_even_opened(files):
    path, directory = files
    os.mknod(path / "file", 0o600 | 0o020000, os.makedev(1, 3))  # /dev/null
    with pytest.raises(OSError) as caught:
        read_file(directory, "file", 32)
    assert caught.value.errno == errno.EMEDIUMTYPE


READS = [
    (b"", 32, None, b""),
    (b"x" * 32, 32, None, b"x" * 32),  # exactly the limit
    (b"x" * 4096, 4096, 64, b"x" * 64),
    (b"x" * 100, 4096, None, b"x" * 100),
    (b"x" * 200_000, 1 << 20, None, b"x" * 200_000),  # longer than one read
]


@pytest.mark.parametrize(("content", "limit", "wanted", "expected"), READS)
def test_a_regular_file_is_read_up_to_its_limit(files, content, limit, wanted, expected):
    path, directory = files
    (path / "file").write_bytes(content)
    assert read_file(directory, "file", limit, wanted) == expected


def test_a_failing_read_is_an_oserror_and_closes_the_file():
    directory = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    before = len(os.listdir("/proc/self/fd"))
    try:
        with pytest.raises(OSError) as caught:
            read_file(directory, "mem", 4096)  # nothing is mapped at 0
        assert caught.value.errno == errno.EIO
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(directory)


def test_a_proc_file_that_comes_in_pieces_is_read_whole():
    directory = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
    try:
        assert read_file(directory, "cmdline", 1 << 20) == Path("/proc/self/cmdline").read_bytes()
    finally:
        os.close(directory)


LINKS = [
    # text, level of its directory, stays inside
    ("../../../bus/pci/drivers/e1000e", 4, True),
    ("../../x", 2, True),  # right below the root
    ("..", 1, True),
    ("../x", 0, False),
    ("../../../x", 2, False),
    ("a/../../b", 0, False),
    ("a/../b/./c", 0, True),
    ("/etc/passwd", 9, False),
    ("", 0, True),
]


@pytest.mark.parametrize(("text", "level", "inside"), LINKS)
def test_a_link_is_judged_by_its_text(text, level, inside):
    assert stays_inside(text, level) is inside


def test_read_link_refuses_what_leads_outside_and_what_is_no_link(files):
    path, directory = files
    put(path / "good", a_link("../x"))
    put(path / "bad", a_link("../../x"))
    put(path / "file", "")
    assert read_link(directory, "good", 1) == "../x"
    for name, number in (("bad", errno.EXDEV), ("file", errno.EINVAL), ("gone", errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            read_link(directory, name, 1)
        assert caught.value.errno == number


def test_a_directory_is_listed_up_to_its_limit(files):
    path, directory = files
    for number in range(5):
        put(path / str(number), "")
    assert sorted(list_names(directory, 5)) == ["0", "1", "2", "3", "4"]
    with pytest.raises(OSError) as caught:
        list_names(directory, 4)
    assert caught.value.errno == errno.EFBIG


def test_names_that_are_no_utf8_become_printable():
    assert text_of(os.fsdecode(b"e1000\xff")) == "e1000\\xff"
    assert text_of("grün") == "grün"


def test_reasons_are_words():
    assert reason(OSError(errno.EIO, os.strerror(errno.EIO))) == "input/output error"
    assert reason(ValueError("embedded null byte")) == "embedded null byte"


def without_links(at):
    """Put in place of each link a file with the link's text, as Git does without core.symlinks."""
    for path in [path for path in at.rglob("*") if path.is_symlink()]:
        target = os.readlink(path)
        path.unlink()
        path.write_text(target)


@pytest.mark.parametrize("fixture", ["lab-pv", "lab-pvh"])
def test_a_recording_that_was_unpacked_without_links_is_read_as_with_them(tmp_path, fixture):
    recorded = Path(__file__).parents[2] / "fixtures/sysfs" / fixture
    shutil.copytree(recorded, tmp_path / "copy", symlinks=True)
    expected = list(read_machine(str(tmp_path / "copy")))
    without_links(tmp_path / "copy")
    assert list(read_machine(str(tmp_path / "copy"))) == expected
    assert len(expected) > 5


@pytest.mark.parametrize("text", ["", "plain", "..", "../a\nb", "../a\0", "/etc", "../" + "a" * 5000])
def test_other_files_are_no_links(tmp_path, text):
    (tmp_path / "name").write_text(text)
    directory = os.open(tmp_path, os.O_PATH)
    try:
        with pytest.raises(OSError) as raised:
            link_text("name", directory)
    finally:
        os.close(directory)
    assert raised.value.errno == errno.EINVAL
