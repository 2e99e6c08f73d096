import random

import pytest

from pcipt.pci import parse_sbdf
from pcipt.xen.console import KEPT_BROKEN, parse_devices
from pcipt.xen.interface import Owner, OwnerKind

DOM0 = Owner(OwnerKind.DOMAIN, 0)
GUEST = Owner(OwnerKind.DOMAIN, 7)
HEAD = "(XEN) ==== PCI devices ====\n(XEN) ==== segment 0000 ====\n"
A = "(XEN) 0000:00:1f.2 - d0 - node -1  - MSIs < 28 >\n"


def read(text: str) -> dict[str, Owner]:
    dump = parse_devices(text)
    assert dump.begun
    assert not dump.broken
    return {str(sbdf): owner for sbdf, owner in dump.owners.items()}


# what a line shows, the line behind "(XEN) ", the owner
OWNERS = [
    ("the measured line", "0000:02:00.0 - d0 - node -1  - MSIs < 28 29 >", DOM0),
    ("no MSIs", "0000:02:00.0 - d0 - node -1 ", DOM0),
    ("trailing blanks cut off", "0000:02:00.0 - d0 - node -1", DOM0),
    ("a node of three digits", "0000:02:00.0 - d0 - node 128", DOM0),
    ("an MSI without interrupt", "0000:02:00.0 - d0 - node 0   - MSIs < -1 >", DOM0),
    ("a guest", "0000:02:00.0 - d7 - node 0  ", GUEST),
    ("the highest domain", "0000:02:00.0 - d32751 - node 0  ", Owner(OwnerKind.DOMAIN, 32751)),
    ("quarantined", "0000:02:00.0 - DomIO:7fef - node 0  ", Owner(OwnerKind.QUARANTINE)),
    ("quarantined, not x86", "0000:02:00.0 - d[IO] - node 0  ", Owner(OwnerKind.QUARANTINE)),
    ("hidden", "0000:02:00.0 - d[XEN] - node 0  ", Owner(OwnerKind.XEN)),
    ("an orphan", "0000:02:00.0 - NULL - node -1 ", Owner(OwnerKind.NOBODY)),
]


@pytest.mark.parametrize(("line", "owner"), [row[1:] for row in OWNERS], ids=[row[0] for row in OWNERS])
def test_owners(line, owner):
    assert read(f"{HEAD}(XEN) {line}\n") == {"0000:02:00.0": owner}


# console_timestamps=, what it puts between prefix and text
STAMPS = [
    ("none", ""),
    ("date", "[2022-11-22 17:08:01] "),
    ("datems", "[2022-11-22 17:08:01.123] "),
    ("boot", "[   12.345678] "),
    ("raw", "[0000001234abcdef] "),
]


@pytest.mark.parametrize("stamp", [row[1] for row in STAMPS], ids=[row[0] for row in STAMPS])
def test_time_stamps(stamp):
    text = (HEAD + A).replace("(XEN) ", f"(XEN) {stamp}")
    assert read(text) == {"0000:00:1f.2": DOM0}


def test_order_and_segments():
    text = (
        HEAD
        + A
        + "(XEN) 0000:00:00.0 - d0 - node -1 \n"
        + "(XEN) ==== segment 0001 ====\n"
        + "(XEN) 0001:ff:1f.7 - NULL - node 1  \n"
        + "(XEN) ==== segment ffff ====\n"
        + "(XEN) ffff:00:00.0 - d[XEN] - node -1 \n"
    )
    assert list(read(text)) == ["0000:00:1f.2", "0000:00:00.0", "0001:ff:1f.7", "ffff:00:00.0"]


# another processor prints while the dump is printed: what it shows, the text, the functions that must be read
TORN = [
    ("a whole line between lines", HEAD + "(XEN) d1v0 did something\n" + A, ["0000:00:1f.2"]),
    (
        "a line inside a line",
        HEAD + "(XEN) 0000:02:00.0 - (XEN) d1v0 did\nd0 - node -1 \n" + A,
        ["0000:02:00.0", "0000:00:1f.2"],
    ),
    (
        "two lines inside a line",
        HEAD + "(XEN) 0000:02:00.0 - d0(XEN) one\n(XEN) two\n - node -1 \n" + A,
        ["0000:02:00.0", "0000:00:1f.2"],
    ),
    (
        "lines at two places of a line",
        HEAD + "(XEN) 0000:02:00.0 - (XEN) one\nd0(XEN) two\n - node -1  - MSIs < 28 (XEN) three\n29 >\n" + A,
        ["0000:02:00.0", "0000:00:1f.2"],
    ),
    (
        "a time-stamped line inside a line",
        HEAD + "(XEN) [    1.000000] 0000:02:00.0 - (XEN) [    1.000001] other\nd0 - node -1 \n",
        ["0000:02:00.0"],
    ),
    (
        "a line behind the unfinished one of another processor",
        HEAD + "(XEN) unfinished(XEN) 0000:02:00.0 - d0 - node -1 \n, its rest\n" + A,
        ["0000:02:00.0", "0000:00:1f.2"],
    ),
    (
        "the header behind the unfinished line of another processor",
        "(XEN) unfinished" + HEAD + A,
        ["0000:00:1f.2"],
    ),
    (
        "a guest's line behind an unfinished one, with a forged one in it",
        HEAD + "(XEN) unfinished(d1) (XEN) 0000:03:00.0 - NULL - node -1 \n" + A,
        ["0000:00:1f.2"],
    ),
    (
        "a guest's line inside a line, with a forged one in it",
        HEAD + "(XEN) 0000:02:00.0 - (d1) (XEN) 0000:03:00.0 - NULL - node -1 \nd0 - node -1 \n",
        ["0000:02:00.0"],
    ),
    (
        "a guest prints a whole dump",
        HEAD + A + "(d1) ==== PCI devices ====\n(d1) 0000:03:00.0 - d0 - node -1 \n",
        ["0000:00:1f.2"],
    ),
    (
        "a guest prints before the dump",
        "(d1) (XEN) ==== PCI devices ====\n(d1) 0000:03:00.0 - d0 - node -1 \n" + HEAD + A,
        ["0000:00:1f.2"],
    ),
    ("somebody pressed Q before us", "(XEN) 0000:09:00.0 - d0 - node -1 \n" + HEAD + A, ["0000:00:1f.2"]),
    (
        "somebody pressed Q in the middle",
        HEAD + A + "(XEN) ==== PCI devices ====\n(XEN) 0000:00:00.0 - d0 - node -1 \n",
        ["0000:00:1f.2", "0000:00:00.0"],
    ),
    ("carriage returns", (HEAD + A).replace("\n", "\r\n"), ["0000:00:1f.2"]),
    ("no end of the last line", (HEAD + A).rstrip("\n"), ["0000:00:1f.2"]),
    ("text of dom0 without a prefix", HEAD + "0000:09:00.0 - d0 - node -1 \n" + A, ["0000:00:1f.2"]),
]


#  what is in the middle of a line of Xen may be text of dom0, and so may the line's end be
TOLD = {
    "a line inside a line", "two lines inside a line", "lines at two places of a line",
    "a time-stamped line inside a line", "a line behind the unfinished one of another processor",
    "a guest's line inside a line, with a forged one in it",
    "somebody pressed Q in the middle", "text of dom0 without a prefix",
}  # fmt: skip


@pytest.mark.parametrize(("what", "text", "functions"), TORN, ids=[row[0] for row in TORN])
def test_other_lines_among_ours(what, text, functions):
    if what in TOLD:
        dump = parse_devices(text)
        assert dump.broken
        assert set(dump.owners.values()) <= {DOM0}
    else:
        assert read(text) == dict.fromkeys(functions, DOM0)


REST = "d0 - node -1  - MSIs < 28 >\n"
#  what dom0 prints where Xen copies it into its ring, in the middle of Xen's line for 02:00.0, which dom0 has
FORGED = [
    "d3 - node -1 \n",
    "d[IO] - node -1 \n",
    "d3 - node -1 \n(XEN) something ",
    "d3 - node -1 \n(XEN) 0000:00:1f.2 - ",
    "d3 - node -1  - MSIs < \n",
    "\n(XEN) 0000:02:00.0 - d3 - node -1 \n",
    "\n(XEN) 0000:02:00.0 - d3 - node -1 \nx",
    "(XEN) other\nd3 - node -1 \n",
]


@pytest.mark.parametrize("forged", FORGED)
@pytest.mark.parametrize("rest", [REST, "d0 - node -1 \n"])
def test_text_of_dom0_inside_a_line_is_told(forged, rest):
    text = HEAD + "(XEN) 0000:02:00.0 - " + forged + rest + A
    assert parse_devices(text).broken


@pytest.mark.parametrize("place", ["before", "behind"])
def test_a_dump_that_dom0_forges_beside_xens_own_is_told(place):
    forged = HEAD + "(XEN) 0000:00:1f.2 - d3 - node -1 \n"
    assert parse_devices(forged + HEAD + A if place == "before" else HEAD + A + forged).broken


# lines that name a device and cannot be read: what is wrong, the lines, how the broken one begins
BROKEN = [
    ("its rest never came", "(XEN) 0000:02:00.0 - (XEN) other\n", "0000:02:00.0 - "),
    (
        "its rest came after the next",
        "(XEN) 0000:02:00.0 - (XEN) x\n" + A + "d0 - node -1 \n",
        "0000:02:00.0",
    ),
    ("the other line never ended", "(XEN) 0000:02:00.0 - (XEN) otherd0 - node -1 \n", "0000:02:00.0 - "),
    ("a domain nobody knows", "(XEN) 0000:02:00.0 - dX - node -1 \n", "0000:02:00.0 - dX"),
    ("a domain of six digits", "(XEN) 0000:02:00.0 - d123456 - node -1 \n", "0000:02:00.0 - d123456"),
    ("no node", "(XEN) 0000:02:00.0 - d0\n", "0000:02:00.0 - d0"),
    ("more than we know", "(XEN) 0000:02:00.0 - d0 - node -1  - new\n", "0000:02:00.0 - d0"),
    ("cut in the MSIs", "(XEN) 0000:02:00.0 - d0 - node -1  - MSIs < 28 \n", "0000:02:00.0 - d0"),
    ("no such device number", "(XEN) 0000:02:20.0 - d0 - node -1 \n", "0000:02:20.0"),
]


@pytest.mark.parametrize(("lines", "begins"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_broken_lines_are_told(lines, begins):
    dump = parse_devices(HEAD + lines + A)
    assert dump.broken[0].startswith(begins)
    assert dump.owners[parse_sbdf("0000:00:1f.2")] == DOM0
    assert parse_sbdf("0000:02:00.0") not in dump.owners


def test_every_cut_of_a_dump_is_told_or_right():
    """Cut anywhere, a dump gives fewer devices, or a broken line, but never a wrong owner."""
    text = HEAD + "(XEN) 0000:02:00.0 - d12 - node 10  - MSIs < 28 29 >\n" + A
    whole = parse_devices(text).owners
    for cut in range(len(text)):
        dump = parse_devices(text[:cut])
        for sbdf, owner in dump.owners.items():
            assert whole[sbdf] == owner


def test_a_line_inside_at_every_place():
    """Wherever another processor's line falls between two printk calls, it is told, nothing invented."""
    pieces = ["(XEN) 0000:02:00.0 - ", "d12", " - node 10 ", " - MSIs < ", "28 ", "29 ", ">", "\n"]
    for place in range(1, len(pieces)):
        for intruder in ("(XEN) other\n", "(d3) 0000:05:00.0 - NULL - node -1 \n", "(XEN) a\n(d3) b\n"):
            line = "".join([*pieces[:place], intruder, *pieces[place:]])
            dump = parse_devices(HEAD + line + A)
            assert dump.broken
            assert dump.owners == {parse_sbdf("0000:00:1f.2"): DOM0}


@pytest.mark.parametrize(
    "text", ["", "\n", "(XEN) d0v0 something\n", "\x00" * 100, "==== PCI devices ====\n" + A]
)
def test_without_a_header_nothing_has_begun(text):
    dump = parse_devices(text)
    assert (dump.begun, dump.owners) == (False, {})


def test_a_flood_of_broken_lines_is_cut():
    dump = parse_devices(HEAD + "(XEN) 0000:02:00.0 - ?\n" * 1000)
    assert len(dump.broken) == KEPT_BROKEN


PRINTED = {
    "d0": DOM0,
    "d12": Owner(OwnerKind.DOMAIN, 12),
    "NULL": Owner(OwnerKind.NOBODY),
    "DomIO:7fef": Owner(OwnerKind.QUARANTINE),
    "d[XEN]": Owner(OwnerKind.XEN),
}
# what other processors print, piece by piece; a guest's line comes whole and may lie
OTHERS = (
    ["d1v0 did something\n"],
    ["begun ", "and ended\n"],
    ["(d3) 0000:01:00.0 - d9 - node -1 \n"],
    ["(d3) (XEN) 0000:01:00.0 - d9 - node -1 \n"],
    ["(d3) ==== PCI devices ====\n"],
)


def interleave(streams: list[list[str]], rng: random.Random) -> str:
    """Print pieces of several processors in any order, as Xen's vprintk_common does."""
    continued, text = [False] * len(streams), ""
    while any(streams):
        cpu = rng.choice([n for n, stream in enumerate(streams) if stream])
        piece = streams[cpu].pop(0)
        if not piece.startswith("(d3) "):
            text += "" if continued[cpu] else "(XEN) "
            continued[cpu] = not piece.endswith("\n")
        text += piece
    return text


@pytest.mark.parametrize("seed", range(20))
def test_any_interleaving_is_read_right_or_told(seed):
    """No device gets a wrong owner, and none is missing without a broken line that says so."""
    rng = random.Random(seed)
    torn = 0
    for _ in range(100):
        expected, dump = {}, ["==== PCI devices ====\n", "==== segment 0000 ====\n"]
        for bus in range(rng.randint(1, 5)):
            owner = rng.choice(list(PRINTED))
            expected[f"0000:{bus:02x}:00.0"] = PRINTED[owner]
            msis = rng.choice([[], [" - MSIs < ", "28 ", "29 ", ">"]])
            dump += [f"0000:{bus:02x}:00.0 - ", owner, " - node -1 ", *msis, "\n"]
        others = [
            [piece for text in rng.choices(OTHERS, k=rng.randint(0, 4)) for piece in text] for _ in range(2)
        ]
        read_back = parse_devices(interleave([dump, *others], rng))
        got = {str(sbdf): owner for sbdf, owner in read_back.owners.items()}
        assert got.items() <= expected.items()
        assert got == expected or read_back.broken
        torn += bool(read_back.broken)
    assert 0 < torn < 100
