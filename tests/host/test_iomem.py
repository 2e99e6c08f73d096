import pytest

from pcipt.errors import InputError
from pcipt.host.files import MEMMAP, MEMMAP_ENTRIES, MEMMAP_FILES
from pcipt.host.iomem import parse_iomem, read_memory, shows_zeros

IOMEM = """\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
fd00000000-fdffffffff : PCI Bus 0000:00
  fd00000000-fd0000ffff : 0000:00:02.0
    fd00000000-fd000000ff : a : name: with colons
"""


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/iomem").write_text(IOMEM)
    return tmp_path


def put_memmap(root, *entries):
    for number, values in enumerate(entries):
        home = root / MEMMAP / str(number)
        home.mkdir(parents=True)
        for entry, value in zip(MEMMAP_FILES, values, strict=True):
            (home / entry.name).write_text(f"{value}\n")


def test_lines_have_their_depth_and_name():
    found, problem = parse_iomem(IOMEM.encode())
    assert problem is None
    assert [(line.range.start, line.range.size, line.depth, line.name) for line in found] == [
        (0, 0x1000, 0, "Reserved"),
        (0x1000, 0x9EC00, 0, "System RAM"),
        (0xFD_0000_0000, 0x1_0000_0000, 0, "PCI Bus 0000:00"),
        (0xFD_0000_0000, 0x1_0000, 1, "0000:00:02.0"),
        (0xFD_0000_0000, 0x100, 2, "a : name: with colons"),
    ]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"nonsense", 1),
        (b"0-1 : a\n2-1 : reversed\n", 2),
        (b"0-1 : a\n0-fffffffffffffffff : 17 digits\n", 2),
        (b"\xff\xfe", 1),
    ],
)
def test_a_bad_line_is_told_and_the_others_are_kept(data, line):
    found, problem = parse_iomem(data)
    assert problem.code == "iomem-malformed"
    assert f"line {line} " in problem.text
    assert len(found) == line - 1


def test_hidden_addresses_are_no_map():
    found, _ = parse_iomem(b"00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n")
    assert shows_zeros(found)
    assert not shows_zeros(())
    assert not shows_zeros(parse_iomem(IOMEM.encode())[0])


def test_a_recording_of_hidden_addresses_is_refused(root):
    (root / "proc/iomem").write_text("00000000-00000000 : System RAM\n")
    with pytest.raises(InputError, match="CAP_SYS_ADMIN"):
        read_memory(str(root))


def test_both_maps_are_read(root):
    put_memmap(root, ("0x0", "0x9fbff", "System RAM"), ("0x9fc00", "0x9ffff", "Reserved"))
    reading = read_memory(str(root))
    assert [(e.range.start, e.range.last, e.name) for e in reading.firmware] == [
        (0, 0x9FBFF, "System RAM"),
        (0x9FC00, 0x9FFFF, "Reserved"),
    ]
    assert len(reading.iomem) == 5
    assert reading.findings == ()


def test_one_of_the_two_is_enough(root):
    assert read_memory(str(root)).firmware == ()
    put_memmap(root, ("0x0", "0x9fbff", "System RAM"))
    (root / "proc/iomem").unlink()
    assert read_memory(str(root)).iomem is None


@pytest.mark.parametrize("content", [None, "a directory"])
def test_without_any_map_there_is_nothing_to_read(root, content):
    (root / "proc/iomem").unlink()
    if content:
        (root / "proc/iomem").mkdir()
    with pytest.raises(InputError) as caught:
        read_memory(str(root))
    assert caught.value.path.endswith("proc/iomem")


@pytest.mark.parametrize(
    ("values", "code", "count"),
    [
        (("zero", "0x1", "x"), "memmap-malformed", 1),
        (("0x2", "0x1", "x"), "memmap-malformed", 1),  # reversed
        (("0x" + "f" * 70, "0x1", "x"), "memmap-unread", 0),  # longer than such a file may be
    ],
)
def test_a_damaged_firmware_map_is_told(root, values, code, count):
    put_memmap(root, values, ("0x0", "0xfff", "System RAM"))
    reading = read_memory(str(root))
    assert [finding.code for finding in reading.findings] == [code]
    assert len(reading.firmware) == count


def test_the_firmware_map_is_bounded(root):
    put_memmap(root, *((f"{n:#x}", f"{n:#x}", "Reserved") for n in range(MEMMAP_ENTRIES + 5)))
    assert len(read_memory(str(root)).firmware) == MEMMAP_ENTRIES
