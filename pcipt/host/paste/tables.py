"""Read ACPI tables in the forms in which people send them: raw, or as the text of a hexdump.

    raw                  as in /sys/firmware/acpi/tables; several one after the other
    acpidump             "DMAR @ 0x…", then rows `    0000: 44 4D 41 52 …  DMAR`
    xxd, xxd -g1, -c32   `00000000: 444d 4152 …  DMAR`, rows of any width; xxd -p has digits alone
    hexdump -C           `00000000  44 4d 41 52 …  |DMAR|`, with `*` for rows that repeat
    hexdump, od -x       `0000000 4d44 5241 …`: words of 16 bits, the low byte first; od counts in octal
    od -t x1, -t x4      `0000000 44 4d 41 52`; words of 32 bits as those of 16; offsets in decimal, or none
    iasl -tc, xxd -i     `0x44,0x4D,0x41,0x52,`
Source: acpica source/common/acfileio.c and source/tools/acpidump; hexdump(1), xxd(1), od(1); ACPI 6.5 §5.2.6
        (a table's length is in its header).
"""

import re
from collections.abc import Iterable, Iterator

from pcipt import values as attrs
from pcipt.host.paste.text import IS_PACKED, PACKED, Line, decoded, lines_of

HEADER, LENGTH_AT = 36, slice(4, 8)
WIDEST, OD_DIGITS = 256, 7  # bytes of a row; digits of od's offsets
_SIGNATURE = re.compile(rb"[A-Z0-9_!]{4}")
_FLAGS = re.ASCII | re.IGNORECASE
_DUMPED = re.compile(r"(?:0x)?([0-9a-f]{4,8})(:?)\s+(?=[0-9a-f]{2})", _FLAGS)
_ENDED = re.compile(r"(?:0x)?[0-9a-f]{5,8}", _FLAGS)
_GROUP = re.compile(r"(?:[0-9a-f]{2}){1,8}", _FLAGS)
_PLAIN = re.compile(r"(?:[0-9a-f]{2})+(?: +(?:[0-9a-f]{2})+)*", _FLAGS)
_ARRAY = re.compile(r"0x([0-9a-f]{2})\b,?", _FLAGS)
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_DSL = re.compile(r"\bDefinitionBlock\b|^\[[0-9a-f]{3}h [0-9]{4}", _FLAGS)
_DSL_NAME = re.compile(r'\bSignature : "([A-Z0-9_]{4})"', re.ASCII)
DSL = (
    "is iasl's text (.dsl), which does not hold each byte: give the table itself, by `acpidump -n {name} "
    "-b` or from /sys/firmware/acpi/tables; if the text was written by hand, give the file that `iasl "
    "FILE.dsl` makes"
)
NO_TABLE = "is a text and no hexdump of a table; give a raw table, or the text of acpidump, xxd, hexdump -C"


class TextError(Exception):
    """Raised if a text holds no table that can be read. The message says what is wrong and in which line."""


@attrs.define
class _Rows:
    """The rows of one hexdump: of each the number of its line, its offset as written, and its groups.

    `repeats` are the rows behind which a `*` stands, by their index.
    """

    rows: list[tuple[int, str, list[str]]] = attrs.field(factory=list)
    repeats: set[int] = attrs.field(factory=set)

    @property
    def width(self) -> int:
        """Return the bytes of the first row: behind it stands the signature, which ends the digits."""
        return sum(map(len, self.rows[0][2])) // 2


def tables_in(data: bytes) -> list[bytes]:
    """Return the tables in the content of a file, in their order; raw bytes that are no table are returned as
    they are.

    Raises: TextError if it is a text from which no table can be read.
    """
    if data.startswith(PACKED):
        raise TextError(IS_PACKED)
    if _is_raw(data):
        return _split(data)
    lines = list(lines_of(data))
    if any(_DSL.search(line.text) for line in lines):
        named = next((name[1] for line in lines if (name := _DSL_NAME.search(line.text))), "DMAR")
        raise TextError(DSL.format(name=named))
    found = [table for dump in _dumps(lines) for table in _split(_assembled(dump))]
    return found or _split(_digits_alone(lines))


def _is_raw(data: bytes) -> bool:
    """Return True if the bytes are a table, too few for one, or no text: they have control characters."""
    if _SIGNATURE.match(data) and int.from_bytes(data[LENGTH_AT], "little") in range(HEADER, 1 << 24):
        return True
    too_short = len(data) < HEADER and b"\n" not in data
    return too_short or _CONTROL.search(decoded(data[:4096])) is not None


def _split(data: bytes) -> list[bytes]:
    """Return the tables that follow each other in `data`. What follows and is no table stays where it is."""
    found = []
    while len(data) > HEADER:
        length = int.from_bytes(data[LENGTH_AT], "little")
        rest = data[length:]
        if not HEADER <= length < len(data) or not _sound(rest):
            break
        found.append(data[:length])
        data = rest
    return [*found, data]


def _sound(data: bytes) -> bool:
    """Return True if a table with a right checksum begins here."""
    length = int.from_bytes(data[LENGTH_AT], "little")
    return (
        _SIGNATURE.match(data) is not None
        and HEADER <= length <= len(data)
        and sum(data[:length]) & 0xFF == 0
    )


def _dumps(lines: Iterable[Line]) -> Iterator[_Rows]:
    """Yield the hexdumps in a text: each begins with a row of offset 0."""
    current = _Rows()
    for line in lines:
        found = _DUMPED.match(line.text)
        if found is None:
            if line.text == "*" and current.rows:
                current.repeats.add(len(current.rows) - 1)
            elif current.repeats and _ENDED.fullmatch(line.text):
                current.rows.append((line.number, line.text.removeprefix("0x"), []))
            continue
        if not found[1].strip("0") and current.rows:
            yield current
            current = _Rows()
        widest = current.width if current.rows else WIDEST
        groups = _groups(line.text[found.end() :].partition("|")[0], widest)
        if groups:
            current.rows.append((line.number, found[1], groups))
    if current.rows:
        yield current


def _groups(text: str, widest: int) -> list[str]:
    """Return the groups of hexadecimal digits at the beginning of a row, at most `widest` bytes.

    The text column behind them ends them; of a last row that is short, what looks like digits there is cut by
    the table's length.
    """
    found: list[str] = []
    for word in text.split():
        if not _GROUP.fullmatch(word) or sum(map(len, found)) + len(word) > 2 * widest:
            break
        found.append(word)
    return found


def _assembled(dump: _Rows) -> bytes:
    """Return the bytes of a hexdump: of the ways to read its groups, the one that gives a sound table.

    If none does, the groups are taken as they are written.

    Raises: TextError if a row is missing.
    """
    written = _joined(dump, swapped=False)
    if _sound(written) or any(len(group) < 4 for _, _, groups in dump.rows for group in groups[:1]):
        return written[: _length(written)]
    swapped = _joined(dump, swapped=True)
    if _sound(swapped):
        return swapped[: _length(swapped)]
    return written[: _length(written)]


def _length(data: bytes) -> int:
    """Return the length that the header of a table says; that of `data` if it says an impossible one."""
    length = int.from_bytes(data[LENGTH_AT], "little")
    return length if len(data) >= HEADER and HEADER <= length <= len(data) else len(data)


def _joined(dump: _Rows, *, swapped: bool) -> bytes:
    """Return the bytes of all rows. With `swapped` each group has its low byte first.

    Raises: TextError if a row does not begin where the row before it ended.
    """
    base = _base(dump)
    data = bytearray()
    for index, (number, offset, groups) in enumerate(dump.rows):
        at = int(offset, base)
        if index - 1 in dump.repeats and len(data) >= dump.width:
            while len(data) < at <= 1 << 24:
                data += data[-dump.width :]
        if not groups and at + 1 == len(data):
            del data[at:]  # the last word was filled up
        if at != len(data):
            raise TextError(
                f"line {number}: the row begins at {at:#x}, expected {len(data):#x}: a row is missing"
            )
        for group in groups:
            part = bytes.fromhex(group)
            data += part[::-1] if swapped else part
    return bytes(data)


def _base(dump: _Rows) -> int:
    """Return the base of the offsets: 16, or for od's seven digits 8 or 10, if in that base the second offset
    is the length of the first row.
    """
    second = dump.rows[1][1] if len(dump.rows) > 1 else ""
    if len(second) != OD_DIGITS:
        return 16
    return next((base for base in (16, 8, 10) if _value(second, base) == dump.width), 16)


def _value(digits: str, base: int) -> int | None:
    """Return the value of digits; None if they are none of this base."""
    try:
        return int(digits, base)
    except ValueError:
        return None


def _digits_alone(lines: Iterable[Line]) -> bytes:
    """Return the bytes of a text that has digits alone (xxd -p, od -An), or the numbers of a C array.

    Raises: TextError if there are neither.
    """
    texts = [line.text for line in lines if line.text]
    plain = ["".join(text.split()) for text in texts if _PLAIN.fullmatch(text)]
    digits = "".join(plain)
    if len(plain) < len(texts) and not _sound(bytes.fromhex(digits)):
        digits = "".join(digit for text in texts for digit in _ARRAY.findall(text.partition("/*")[0]))
    data = bytes.fromhex(digits)
    if len(data) < HEADER:
        raise TextError(NO_TABLE)
    return data[: _length(data)]
