"""Turn a pasted file into clean lines: any encoding, quoted by mail, indented, with the time stamps of a log.

Source: RFC 3676 §4.5 (quoting with ">"); RFC 2045 §6.7 (quoted-printable); syslog(2) ("<6>"), printk time
        stamps: linux kernel/printk/printk.c, print_prefix; dmesg(1), option -x; journalctl(1), -o.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from pcipt import values as attrs

TAB = 8  # columns
PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")  # gzip, bzip2, xz, zstd, zip
IS_PACKED = "is compressed: unpack it first"
#  what word processors, forums and web pages put in place of spaces, hyphens and quotation marks
_ODD = str.maketrans(
    dict.fromkeys("\u00a0\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B))), " ")
    | dict.fromkeys("\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\r\0", "")
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u2033", '"')
)
_MARKUP = {"gt": ">", "lt": "<", "amp": "&", "nbsp": " ", "quot": '"', "apos": "'"}
_ENTITY = re.compile(r"&(?:([a-z]{2,4})|#(\d{1,5})|#x([0-9a-f]{1,4}));", re.ASCII | re.IGNORECASE)
#  what cat -n, less -N, grep -n and numbered lists put in front; the address of a function is no number
_NUMBER = re.compile(
    r"^\s{0,8}([1-9]\d{0,6})(?!:[01][0-9a-f]\.[0-7])(?:[.:)|] ?|\t| |$)", re.ASCII | re.IGNORECASE
)
_FEWEST_NUMBERED = 3
_QUOTED_PRINTABLE = {"=3D": "=", "=20": " ", "=09": "\t"}
_BBCODE = "i?code|quote|spoiler|plain"
_QUOTE = re.compile(r"(?: {0,3}[>|] ?)+")
#  HTML, a forum's [CODE], the backquotes of Markdown
_ATTRIBUTES = r'(?: [a-z-]{1,20}="[^"<>]{0,80}"){0,4}'
_TAGS = re.compile(
    rf"(?:</?[a-z]{{1,8}}{_ATTRIBUTES}>|\[/?(?:{_BBCODE})(?:=[^\]]{{0,40}})?\]|`{{1,4}})+",
    re.IGNORECASE,
)
_END_TAGS = re.compile(rf"(?:</[a-z]{{1,8}}>|<br ?/?>|\[/(?:{_BBCODE})\]|`{{1,4}})+$", re.IGNORECASE)
_LONGEST_TAGS = 60
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,16}[A-Za-z]")
_LOG = re.compile(
    r"(?:<\d{1,3}>|kern  :[a-z]{3,6} {0,3}: )?"
    #  the program that wrote the line: the kernel, or lspci in a unit
    r"(?:(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ][\d:.,+Z-]{8,24}) \S{1,80} "
    r"[\w.-]{1,40}(?:\[\d{1,9}\])?: ?)?"
    r"(?:\[[ \d]{1,12}\.\d{1,9}\](?:\[ *[TC]\d{1,9}\])?(?: [^\s:]{1,80} kernel:)? ?"
    r"|\[[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \d{4}\] ?)?"
)
_BEFORE_LOG = frozenset("<[`k0123456789ADFJMNOS")  # what a prefix of a log, or a tag, begins with
_BEFORE_TAG, _BEHIND_TAG = frozenset("<[`"), frozenset(">]`")


@attrs.frozen
class Line:
    """One line: its number in the file (from 1), its indentation in columns, its text without indentation and
    without spaces at the end.
    """

    number: int
    indent: int
    text: str


def decoded(data: bytes) -> str:
    """Return the text of a file: UTF-16 (known by its zero bytes), UTF-8, else Latin-1. Raises nothing."""
    sample = data[:4096]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if len(sample) >= 4 and max(even, odd) * 4 >= len(sample):  # every second byte of plain text is zero
        return data.decode("utf-16-be" if even > odd else "utf-16-le", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def lines_of(data: bytes) -> Iterator[Line]:
    """Yield the lines of a pasted file, without what mail, a log or a web page put around their text.

    Lines end with LF, CR LF or CR. Quote marks at the beginning, time stamps and levels of the kernel's log,
    colours and markup are removed. A line that mail broke with "=" is joined.
    """
    text = decoded(data)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\u2028" in text:
        text = text.replace("\u2028", "\n")
    if "&" in text:
        text = _ENTITY.sub(_meant, text)
    encoded = "=3D" in text
    held, first = "", 0  # what mail broke off
    for number, row in enumerate(_without_numbers(text.split("\n")), 1):
        first = first or number
        if row[-1:] == "=":
            held += row[:-1]
            continue
        yield _clean(first, _plain(held + row) if encoded else held + row)
        held, first = "", 0
    if held:
        yield _clean(first, held)


def _meant(entity: re.Match[str]) -> str:
    """Return the character that an entity of HTML stands for; one that is not known stays as it is."""
    name, decimal, digits = entity.groups()
    if name is not None:
        return _MARKUP.get(name.lower(), entity[0])
    code = int(decimal) if decimal is not None else int(digits, 16)
    return chr(code) if code <= 0xFFFF and not 0xD800 <= code < 0xE000 else entity[0]


def _without_numbers(rows: list[str]) -> list[str]:
    """Return the rows without their line numbers, if at least half of the rows count up from one to the next.

    Only the rows that count lose their number.
    """
    numbers = [int(found[1]) if (found := _NUMBER.match(row)) is not None else 0 for row in rows]
    follows = [bool(before) and after == before + 1 for before, after in pairwise(numbers)]
    if sum(follows) < max(_FEWEST_NUMBERED - 1, sum(map(bool, rows)) // 2):
        return rows
    counts = map(max, [False, *follows], [*follows, False])
    return [
        _NUMBER.sub("", row, count=1) if counted else row for row, counted in zip(rows, counts, strict=True)
    ]


def _plain(row: str) -> str:
    """Return a quoted-printable line with its spaces, tabs and equals signs."""
    for name, meant in _QUOTED_PRINTABLE.items():
        row = row.replace(name, meant)
    return row


def _clean(number: int, row: str) -> Line:
    """Return one line without what was put around its text."""
    if not row.isascii():
        row = row.translate(_ODD)
    if "\x1b" in row:
        row = _COLOUR.sub("", row)
    if (quote := _QUOTE.match(row)) is not None:
        row = row[quote.end() :]
        row = row.rstrip(" |") if "|" in quote[0] else row
    if row[:1] in _BEFORE_LOG:
        if row[0] in _BEFORE_TAG and (tags := _TAGS.match(row)) is not None:
            row = row[tags.end() :]
        if (prefix := _LOG.match(row)) is not None:
            row = row[prefix.end() :]
    if row[-1:] in _BEHIND_TAG and (tags := _END_TAGS.search(row[-_LONGEST_TAGS:])) is not None:
        row = row[: len(row) - len(tags[0])]
    text = row.strip()
    indent = len(row[: len(row) - len(row.lstrip())].expandtabs(TAB)) if row[:1] in " \t" else 0
    return Line(number, indent, text)
