import random

import pytest

from pcipt.pci import Address, Frames, Gfn, Range
from pcipt.xen.interface import Permissions
from pcipt.xen.rangesets import parse_permissions

BEGIN = "(XEN) 'q' pressed -> dumping domain info (now = 12345678)\n"
GENERAL = "(XEN) General information for domain 0:\n"
HEAD = GENERAL + "(XEN) Rangesets belonging to domain 0:\n"
END = "(XEN) Notifying guest 0:0 (virq 1, port 0)\n"
MEMORY = "(XEN)     I/O Memory { 0-fedff, fef00-fcfffff }\n"
PORTS = "(XEN)     I/O Ports  { 0-1f, 22-3f, 92 }\n"
# as Xen 4.17 prints a domain, shortened
DUMP = (
    BEGIN + GENERAL + "(XEN)     refcnt=3 dying=0 pause_count=0\n"
    "(XEN)     nr_pages=262144 xenheap_pages=2 shared_pages=0 paged_pages=0 dirty_cpus={0} max_pages=262144\n"
    "(XEN)     handle=00000000-0000-0000-0000-000000000000 vm_assist=00000000\n" + HEAD.removeprefix(GENERAL)
    + "(XEN)     Interrupts { 1-15, 24 }\n" + MEMORY + PORTS
    + "(XEN)     log-dirty  { }\n"
    "(XEN) Memory pages belonging to domain 0:\n"
    "(XEN)     DomPage list too long to display\n"
)  # fmt: skip
DOM0 = Permissions(
    (Frames(Gfn(0), 0xFEE00), Frames(Gfn(0xFEF00), 0xFC01100)),
    (Range(Address(0), 0x20), Range(Address(0x22), 0x1E), Range(Address(0x92), 1)),
)
GUEST = (
    "(XEN) General information for domain 7:\n(XEN) Rangesets belonging to domain 7:\n"
    "(XEN)     I/O Memory { fe800-fe883 }\n(XEN)     I/O Ports  { }\n"
)


def whole(text: str) -> str:
    """Give the text with the lines that begin and end a dump of Xen."""
    return (text if "'q' pressed" in text else BEGIN + text) + END


def read(text: str) -> dict[int, Permissions]:
    dump = parse_permissions(whole(text))
    assert not dump.broken
    return dict(dump.domains)


def test_the_dump_of_one_domain():
    assert read(DUMP) == {0: DOM0}


def test_every_domain_is_told_apart():
    assert read(DUMP + GUEST) == {0: DOM0, 7: Permissions((Frames(Gfn(0xFE800), 0x84),), ())}


def test_a_domain_that_is_printed_twice_is_told():
    assert parse_permissions(whole(DUMP + GUEST.replace("fe800-fe883", "fe800") + GUEST)).broken


# console_timestamps=, what it puts between prefix and text
STAMPS = [
    ("date", "[2022-11-22 17:08:01] "),
    ("boot", "[   12.345678] "),
    ("raw", "[0000001234abcdef] "),
]


@pytest.mark.parametrize("stamp", [row[1] for row in STAMPS], ids=[row[0] for row in STAMPS])
def test_time_stamps(stamp):
    assert read(DUMP.replace("(XEN) ", f"(XEN) {stamp}")) == {0: DOM0}


# another processor prints between the pieces: what it shows, what is replaced, by what
TORN = [
    ("between two numbers", " fef00", "(XEN) d1v0 did something\n fef00"),
    ("within a range", "fef00-", "fef00-(XEN) d1v0 did something\n"),
    ("behind the indent", "    I/O Memory", "    (XEN) d1v0 did something\nI/O Memory"),
    ("twice", "fef00-", "fef00-(XEN) one\n(XEN) two\n"),
    ("by a guest", "fef00-", "fef00-(d1) I/O Memory { 0-ffff }\n"),
    ("before the end", " }\n(XEN)     I/O Ports", "(XEN) d1v0 did something\n }\n(XEN)     I/O Ports"),
]


@pytest.mark.parametrize(("right", "torn"), [row[1:] for row in TORN], ids=[row[0] for row in TORN])
def test_torn_lines_are_told(right, torn):
    """What is in the middle of a line may be text of dom0, and so may the line's end be."""
    text = HEAD + MEMORY + PORTS
    assert text.count(right) == 1
    assert parse_permissions(whole(text.replace(right, torn))).broken


@pytest.mark.parametrize(
    "forged", ["0-ffffffff }\n", "0-ffffffff }\n(XEN) x ", "\n(XEN)     I/O Memory { 0-ffffffff }\n"]
)
def test_text_of_dom0_inside_a_line_is_told(forged):
    text = HEAD + MEMORY.replace("{ ", "{ " + forged, 1) + PORTS
    assert parse_permissions(whole(text)).broken


# what cannot be read: what it shows, the text
BROKEN = [
    ("its rest is missing", HEAD + "(XEN)     I/O Memory { 0-fedff, fe\n" + PORTS),
    ("not a number", HEAD + MEMORY.replace("fedff", "xyz") + PORTS),
    ("ports that cannot be read", HEAD + MEMORY + PORTS.replace("1f", "-1f")),
    ("no memory at all", HEAD + PORTS),
    ("a domain without a number", "(XEN) Rangesets belonging to domain x:\n" + MEMORY),
    ("a set that belongs to nobody", MEMORY),
]


@pytest.mark.parametrize("text", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_what_cannot_be_read_is_said(text):
    assert parse_permissions(whole(text)).broken


def test_a_guest_cannot_forge_a_set():
    forged = "(d7) (XEN)     I/O Memory { 0-ffffffff }\n"
    assert read(HEAD + forged + MEMORY + forged + PORTS) == {0: DOM0}


#  a range that is cut or torn, a domain of which a line is lost
@pytest.mark.parametrize("text", [DUMP.replace("fef00-fcfffff", "fef00-fcff"), DUMP.replace(PORTS, "")])
def test_what_xen_never_prints_is_no_answer(text):
    assert parse_permissions(whole(text)).broken


#  what dom0 may print among the lines of Xen (console_to_ring): the text, what stands before it
FORGED = [
    ("a domain without its information", GUEST.partition("\n")[2], DUMP),
    ("a domain behind the end", GUEST, DUMP + END),
    ("a set behind the end", "(XEN)     I/O Memory { 0-ff }\n", DUMP + END),
    ("the information of a domain that was printed", GENERAL, DUMP),
    ("another beginning", BEGIN, DUMP),
    ("a domain inside a line", "text" + GUEST, DUMP),
    ("a set inside a line", "text(XEN)     I/O Memory { 0-ff }\n", DUMP + GUEST.partition("(XEN)     ")[0]),
    ("an end of a domain that was not printed", END.replace("0:0", "9:0"), DUMP),
]


@pytest.mark.parametrize(("forged", "before"), [row[1:] for row in FORGED], ids=[row[0] for row in FORGED])
def test_lines_that_are_not_where_xen_prints_them_are_told(forged, before):
    assert parse_permissions(before + forged + END).broken


@pytest.mark.parametrize("text", [DUMP, DUMP.removeprefix(BEGIN) + END, HEAD + MEMORY + PORTS])
def test_a_dump_without_beginning_or_end_is_told(text):
    assert parse_permissions(text).broken


def test_a_text_without_a_dump_is_empty():
    dump = parse_permissions("(XEN) something else\n")
    assert (dict(dump.domains), dump.broken) == ({}, ())


def test_a_long_line():
    items = ", ".join(f"{2 * n:x}" for n in range(20000))
    found = read(f"{HEAD}(XEN)     I/O Memory {{ {items} }}\n{PORTS}")
    assert found[0].memory == tuple(Frames(Gfn(2 * n), 1) for n in range(20000))


def test_noise_neither_raises_nor_hangs():
    chance = random.Random(4)
    for _ in range(300):
        text = list(DUMP + GUEST)
        for _ in range(chance.randrange(1, 30)):
            text[chance.randrange(len(text))] = chance.choice("(XEN) {}-,\n\x00d0")
        parse_permissions("".join(text))
