import struct
import time

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.errors import MalformedError
from pcipt.firmware.memory_map import MemoryEntry, MemoryType, entry
from pcipt.firmware.pvh.check_rows import Verdict
from pcipt.firmware.pvh.memory_image import Piece, image_from_pieces
from pcipt.firmware.pvh.read_start_info import MAX_MAP_ENTRIES, MAX_MODULES, find_start_info, parse_start_info
from pcipt.firmware.pvh.start_info import HEADER, MAGIC, Module, Order, StartInfo, build_start_info
from pcipt.pci import Address, Range

AT = 0x10_0000
M64 = (1 << 64) - 1

lines = st.none() | st.binary(max_size=40).filter(lambda text: b"\0" not in text)
modules = st.builds(Module, st.integers(0, M64), st.integers(0, M64), lines)
entries = st.integers(0, M64).flatmap(
    lambda start: st.builds(
        lambda size, kind: MemoryEntry(Range(Address(start), size), kind),
        st.integers(1, (1 << 64) - start), st.integers(0, 0xFFFF_FFFF),
    )
)  # fmt: skip
infos = st.builds(
    lambda version, memory_map, **rest: StartInfo(version, memory_map=memory_map if version else (), **rest),
    st.integers(0, 1),
    st.lists(entries, max_size=5).map(tuple),
    flags=st.integers(0, 0xFFFF_FFFF),
    modules=st.lists(modules, max_size=4).map(tuple),
    cmdline=lines,
    rsdp=st.none() | st.integers(1, M64),
)


def image(data, at=AT):
    return image_from_pieces([Piece(at, data)])


def errors(parsed):
    return {(row.rule, row.table, row.offset) for row in parsed.rows if row.verdict is Verdict.ERROR}


def warnings(parsed):
    return {(row.rule, row.table, row.offset) for row in parsed.rows if row.verdict is Verdict.WARN}


@settings(deadline=None)
@given(infos, st.sampled_from(list(Order)), st.integers(1, 1 << 40).map(lambda n: 8 * n))
def test_what_was_built_is_read_back(info, order, at):
    built = build_start_info(info, at, order)
    parsed = parse_start_info(image(built.data, at), built.places.start_info)
    assert parsed.info == info
    assert parsed.places == built.places
    if order is Order.LIBXL:
        assert find_start_info(image(built.data, at)).info == info


GOOD = StartInfo(
    1,
    modules=(Module(0x200_0000, 5000, b"initrd"),),
    cmdline=b"console=hvc0",
    memory_map=(entry(0, 0x9F000, MemoryType.RAM), entry(0x10_0000, 0x700_0000, MemoryType.RAM)),
)
BUILT = build_start_info(GOOD, AT)
MODLIST, MEMMAP = BUILT.places.module_list - AT, BUILT.places.memory_map - AT
CMDLINE = BUILT.places.cmdline - AT


def changed(*changes):
    data = bytearray(BUILT.data)
    for offset, form, value in changes:
        struct.pack_into(form, data, offset, value)
    return bytes(data)


def test_a_sound_one_has_no_findings():
    parsed = find_start_info(image(BUILT.data))
    assert errors(parsed) == warnings(parsed) == set()
    rules = "magic version flags reserved module memory-map string rsdp overlap below-4gib"
    assert {row.rule for row in parsed.rows} == set(rules.split())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(4, "<I", 2)], ("version", "start_info", 4)),
        ([(52, "<I", 1)], ("reserved", "start_info", 52)),
        ([(MODLIST + 24, "<Q", 1)], ("reserved", "module list", 24)),
        ([(MEMMAP + 24 + 20, "<I", 7)], ("reserved", "memory map", 44)),
        ([(12, "<I", 0xFFFF_FFFF)], ("module-list", "start_info", 12)),  # far more than the image holds
        ([(48, "<I", 0xFFFF_FFFF)], ("memory-map", "start_info", 48)),
        ([(16, "<Q", 0)], ("module-list", "start_info", 12)),  # one module, no list
        ([(16, "<Q", M64)], ("module-list", "start_info", 12)),  # a list at the last byte there is
        ([(40, "<Q", 0)], ("memory-map", "start_info", 48)),
        ([(24, "<Q", 0xDEAD_0000)], ("string", "start_info", 24)),  # outside the image
        ([(24, "<Q", AT)], ("overlap", "start_info", None)),  # the structure as its own command line
        ([(16, "<Q", AT)], ("overlap", "start_info", None)),  # and as its own module list
        ([(40, "<Q", AT + MODLIST)], ("overlap", "start_info", None)),  # the map lies over the list
        ([(MODLIST, "<Q", AT)], ("overlap", "start_info", None)),  # the module lies over the structure
        ([(MODLIST, "<Q", M64)], ("module", "module list", 0)),  # wraps
        ([(MODLIST, "<Q", 0)], ("module", "module list", 0)),
        ([(MODLIST, "<Q", 0xA_0000)], ("module", "module list", 0)),  # in a hole of the map
        ([(MODLIST + 16, "<Q", 1)], ("string", "module list", 16)),
        ([(MEMMAP + 8, "<Q", 0)], ("memory-map", "memory map", 0)),  # empty
        ([(MEMMAP + 8, "<Q", M64), (MEMMAP, "<Q", 2)], ("memory-map", "memory map", 0)),  # wraps
        ([(MEMMAP + 24, "<Q", 0x8_0000)], ("memory-map", "memory map", 24)),  # overlaps the first
    ],
)
def test_errors_are_named_with_their_place(changes, expected):
    assert expected in errors(find_start_info(image(changed(*changes))))


def test_every_map_entry_that_lies_over_a_large_one_is_found():
    entries = [(0, 0x1_0000), (0x1000, 0x1000), (0x4000, 0x1000), (0x8000, 0x1000)]
    info = attrs.evolve(GOOD, modules=(), memory_map=tuple(entry(*e, MemoryType.RAM) for e in entries))
    found = errors(find_start_info(image(build_start_info(info, AT).data)))
    assert found == {("memory-map", "memory map", 24 * number) for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([(8, "<I", 2)], ("flags", "start_info", 8)),  # initial domain, yet not privileged
        ([(8, "<I", 0x8000_0000)], ("flags", "start_info", 8)),  # nobody knows this one
        ([(32, "<Q", 0xFC00_0000)], ("rsdp", "start_info", 32)),  # not in the image
        ([(MODLIST + 8, "<Q", 0)], ("module", "module list", 8)),
        ([(MEMMAP + 16, "<I", 99)], ("memory-map", "memory map", 16)),
        ([(CMDLINE, "<B", 0xE9)], ("string", "start_info", 24)),
    ],
)
def test_warnings_are_named_with_their_place(changes, expected):
    assert expected in warnings(find_start_info(image(changed(*changes))))


def test_a_map_may_be_out_of_order_as_libxl_writes_it():
    info = StartInfo(1, memory_map=GOOD.memory_map[::-1])
    parsed = find_start_info(image(build_start_info(info, AT).data))
    assert warnings(parsed) == errors(parsed) == set()
    assert any("not in order" in row.reason for row in parsed.rows)


def test_a_module_above_4_gib_is_legal_and_a_list_there_a_warning():
    info = StartInfo(1, modules=(Module(0x1_0000_0000, 10),))
    assert errors(find_start_info(image(build_start_info(info, AT).data))) == set()
    high = find_start_info(image(build_start_info(info, 1 << 32).data, 1 << 32))
    assert warnings(high) == {("below-4gib", "start_info", None)}


def test_an_unterminated_string_is_an_error():
    data = BUILT.data[:CMDLINE] + b"x" * 4000
    found = errors(find_start_info(image(data)))
    assert ("string", "start_info", 24) in found


def test_several_modules_may_share_an_empty_line():
    info = StartInfo(1, modules=(Module(0x1000_0000, 8, b""), Module(0x1000_1000, 8, b"")))
    built = build_start_info(info, AT)
    data = bytearray(built.data)
    struct.pack_into("<Q", data, built.places.module_list - AT + 48, built.places.module_cmdlines[0])
    assert errors(find_start_info(image(bytes(data)))) == set()


@pytest.mark.parametrize("size", [0, 3, 4, 39])
def test_less_than_the_structure_is_no_start_info(size):
    with pytest.raises(MalformedError):
        find_start_info(image(BUILT.data[:size] or b"\0"))


@pytest.mark.parametrize("size", range(40, len(BUILT.data)))
def test_cut_anywhere_it_is_read_as_far_as_it_goes(size):
    parsed = find_start_info(image(BUILT.data[:size]))
    assert errors(parsed)
    assert parsed.info.version == 1


@pytest.mark.parametrize("at", range(len(BUILT.data)))
def test_any_byte_flipped_raises_nothing_but_malformed(at):
    data = bytearray(BUILT.data)
    data[at] ^= 0xFF
    if at < 4:
        with pytest.raises(MalformedError):
            parse_start_info(image(bytes(data)), AT)
    else:
        assert parse_start_info(image(bytes(data)), AT).places.start_info == AT


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_behind_the_magic_end_in_rows(tail):
    data = MAGIC.to_bytes(4, "little") + tail
    if len(data) < HEADER.size:
        with pytest.raises(MalformedError):
            find_start_info(image(data))
    else:
        assert find_start_info(image(data)).rows


def test_it_is_found_among_code_that_looks_for_it():
    code = b"\x81\x3b" + MAGIC.to_bytes(4, "little") + b"\x75\x0b" * 40  # cmpl $magic, (%ebx); jne …
    data = bytes(2) + code + bytes(-(len(code) + 2) % 8) + bytes(64)
    at = AT + len(data)
    moved = build_start_info(GOOD, at)
    assert find_start_info(image(data + moved.data)).places.start_info == at


def test_the_structure_may_be_the_last_thing_as_in_dom0():
    built = build_start_info(GOOD, AT, Order.DOM0)
    assert find_start_info(image(built.data)).info == GOOD


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (HEADER.pack(MAGIC, 7, 0, 0, 0, 0, 0), "no hvm_start_info follows"),  # no known version
        (
            HEADER.pack(MAGIC, 0, 0, 0xFFFF, 0, 0, 0),
            "no hvm_start_info follows",
        ),  # more than any loader makes
        (MAGIC.to_bytes(4, "little") + bytes(20), "no hvm_start_info follows"),  # cut off
        (bytes(64), "not contain its magic"),
    ],
)
def test_code_alone_is_no_start_info(data, why):
    with pytest.raises(MalformedError, match=why):
        find_start_info(image(bytes(8) + data))


def test_the_one_with_the_fewest_errors_is_taken():
    bad, worse = StartInfo(0, modules=(Module(0, 1),)), StartInfo(0, modules=(Module(0, 1), Module(0, 2)))
    first = build_start_info(worse, AT + 8)
    at = AT + 8 + len(first.data)
    data = bytes(8) + first.data + build_start_info(bad, at).data
    assert find_start_info(image(data + build_start_info(worse, AT + len(data)).data)).info == bad


def test_only_so_many_candidates_are_looked_at():
    worse = HEADER.pack(MAGIC, 0, 0, 1, 0, 0, 0)  # a module list at address 0
    good = build_start_info(StartInfo(0), AT).data
    assert errors(find_start_info(image(bytes(8) + 20 * worse + good)))
    assert not errors(find_start_info(image(bytes(8) + 3 * worse + good)))


@pytest.mark.parametrize(
    ("info", "limit"),
    [
        (StartInfo(0, modules=2000 * (Module(0x1000_0000, 0),)), MAX_MODULES),
        (
            StartInfo(1, memory_map=tuple(entry(2 * n, 1, MemoryType.RAM) for n in range(5000))),
            MAX_MAP_ENTRIES,
        ),
    ],
)
def test_long_lists_are_cut_and_told(info, limit):
    parsed = find_start_info(image(build_start_info(info, AT).data))
    assert max(len(parsed.info.modules), len(parsed.info.memory_map)) == limit
    assert any(f"the first {limit} are read" in row.reason for row in parsed.rows)


@pytest.mark.parametrize(
    "data",
    [
        MAGIC.to_bytes(4, "little") * (1 << 20),  # a structure at every word
        (MAGIC.to_bytes(4, "little") + b"\x01\0\0\0") * (1 << 19),
        b"\0" + MAGIC.to_bytes(4, "little") * (1 << 20),  # never aligned
        HEADER.pack(MAGIC, 0, 0, 0xFFFF_FFFF, AT, AT, 0) + bytes(4 << 20),  # the image is the list
        HEADER.pack(MAGIC, 0, 0, MAX_MODULES, AT + 40, AT + 40, 0)
        + b"".join(struct.pack("<QQQQ", 1, 1, AT + 40 + 32 * MAX_MODULES, 0) for _ in range(MAX_MODULES))
        + b"x" * (1 << 20),  # a thousand strings of a megabyte
    ],
)
def test_hostile_images_end_soon(data):
    started = time.monotonic()
    try:
        assert find_start_info(image(data)).rows
    except MalformedError as error:
        assert error.why  # noqa: PT017 either way is an end
    assert time.monotonic() - started < 10


def test_an_empty_image_has_none():
    with pytest.raises(MalformedError, match="the image is empty"):
        find_start_info(image_from_pieces([]))
