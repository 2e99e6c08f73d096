"""Find the functions in a pasted text: headings of lspci, of its machine-readable forms, and of boot logs
with pci=earlydump, each with its lines of bytes and words.

Lines of bytes count only if they are not indented more than their heading: lspci indents its words.
Source: lspci(8), options -x, -m, -F; pciutils lib/dump.c; linux drivers/pci/probe.c, early_dump_pci_device
        (rows of 8 digits) and, before 4.19, arch/x86/pci/early.c (rows of 2 digits).
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from pcipt import values as attrs
from pcipt.host.paste.text import Line
from pcipt.host.paste.words import Words, is_line_of_words
from pcipt.pci import Finding, Sbdf

MAX_CONFIG = 4096
_FLAGS = re.ASCII | re.IGNORECASE
_SBDF = r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}):([01][0-9a-f])\.([0-7])"
_ONE = r"[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
#  bridges in front: lspci -PP, which tells the segment only once
_ADDRESS = re.compile(rf"(?:(?P<first>[0-9a-f]{{4,8}}:)?[0-9a-f:./]{{1,200}}/)?{_SBDF}(?=\s|$)", _FLAGS)
#  the ids, and [R] for a function that can be reset, as some of these scripts put them first
_MARKS = r"(?:\[[0-9a-f]{4}:[0-9a-f]{4}\]\s+(?:\[R\]\s+)?|\[R\]\s+)"
_IDS_FIRST = re.compile(r"\[([0-9a-f]{4}):([0-9a-f]{4})\]", _FLAGS)
#  what scripts that list IOMMU groups, grep -n and lists put before the heading
_BEFORE = re.compile(
    rf"(?:(?:IOMMU[ _])?group:?\s*\d{{1,4}}:?\s+(?:{_MARKS})?|\d{{1,3}}:|[-*\u2022]\s+|{_MARKS})"
    rf"(?=(?:[0-9a-f]{{4,8}}:)?{_ONE}\s)",
    _FLAGS,
)
_BY_PATH = re.compile(  # lspci -P: the function on the root bus, then device and function below each bridge
    r"([0-9a-f:]{5,13}\.[0-7](?:/[0-9a-f]{2}\.[0-7]){0,59})/([01][0-9a-f])\.([0-7])(?=\s|$)", _FLAGS
)
_SECONDARY = 0x19
_EARLY = re.compile(rf"(?:\S{{1,40}} )?{_SBDF}:? config space:", _FLAGS)
_SLOT = re.compile(r"(?:Slot|Device):\s*(?=[0-9a-f:./]+$)", _FLAGS)  # lspci -vmm
_FIELD = re.compile(r"([A-Za-z]{3,12}):\s*(.*)")
_OFFSET = re.compile(r"([0-9a-f]{2,3}|[0-9a-f]{8}):(?=\s|$)", _FLAGS)
_BYTES = re.compile(r"(?:\s+[0-9a-f]{2}){1,16}", _FLAGS)
_BYTES_ALONE = re.compile(r"[0-9a-f]{2}(?:\s+[0-9a-f]{2}){0,14}", _FLAGS)  # the rest of a folded row
_AS_TEXT = re.compile(r"((?:\s+[0-9a-f]{2}){16})\s{2}.{1,36}", _FLAGS)  # behind 16 bytes: their characters
#  what no line of lspci begins with: the end of a BAR, of bus numbers, of the heading, of flags
_CONTINUES = re.compile(
    r"\[(?:size=|disabled|enhanced|(?:16|32|64)-bit)|(?:non-)?prefetchable\)|\((?:32|64)-bit, "
    r"|\(rev [0-9a-f]{2}\)|\(prog-if |(?:secondary|subordinate|sec-latency)="
    r"|(?:[A-Za-z][A-Za-z0-9]{2,11}[+-] ?){1,11}$",
    _FLAGS,
)
_MOST_LABEL, _QUOTES = 60, 10
#  a heading or a line of words that ends inside of these
_OPEN = re.compile(
    r"\((?:rev|prog-if(?: [0-9a-f]{2}(?: \[[^\]]{0,60})?)?)$"
    r"|behind bridge:$|(?:Memory|ports|ROM) at$|in use:$",
    _FLAGS,
)
#  lines of words with names or flags up to any length: mail folds them anywhere
_LONG, _FOLDED = re.compile(r"(?:Subsystem|Flags|Control): ", _FLAGS), 40
_ENDED = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}\]?$", _FLAGS)  # the ids of a subsystem
_PROMPT = re.compile(r"[@#$~]")


@attrs.define
class Block:
    """What stands about one function in one place.

    `line` is the number of its heading, `last` of its last line that was understood. `label` is the line
    before the heading that belongs to no function, such as a shell's prompt. `config` holds its bytes,
    `words` its words. `early` is True if a boot log tells it: then there are no words.
    `placed` is False if a path names the function, and the bus at its end is not known; `sbdf` means nothing
    then.
    """

    sbdf: Sbdf
    line: int
    label: str = ""
    last: int = 0
    config: bytearray = attrs.field(factory=bytearray)
    words: Words = attrs.field(factory=Words)
    findings: list[Finding] = attrs.field(factory=list)
    early: bool = False
    placed: bool = True
    _broken: bool = False

    @property
    def identity(self) -> tuple[int, int] | None:
        """Return vendor and device, by the bytes or by the words; None if they are not known."""
        if len(self.config) >= 4:
            return int.from_bytes(self.config[:2], "little"), int.from_bytes(self.config[2:4], "little")
        if self.words.vendor is not None and self.words.device is not None:
            return self.words.vendor, self.words.device
        return None

    @property
    def secondary(self) -> int | None:
        """Return the number of the bus below, if it is a bridge and its bytes or its words tell it."""
        if len(self.config) > _SECONDARY and self.config[0x0E] & 0x7F in (1, 2):
            return self.config[_SECONDARY] or None
        return self.words.buses[1] or None if self.words.buses is not None else None

    @property
    def is_heading(self) -> bool:
        """Return True if it may be a function: it has bytes or words that help, or its title reads like one.

        A sentence that begins with an address is no heading.
        """
        return bool(self.config) or self.early or self.words.helps or ": " in self.words.title

    def add(self, number: int, offset: int, text: str) -> None:
        """Append a row of bytes.

        `number` is the number of the line in the dump, `offset` the offset that the line names, `text` the
        rest of the line. A row is wrong if it is malformed, does not continue at the end of the bytes so far,
        or goes beyond 4096 bytes. The first wrong row adds a finding. All rows after a wrong one are ignored.
        """
        if self._broken:
            return
        self.last = number
        if (both := _AS_TEXT.fullmatch(text)) is not None:
            text = both[1]
        if not _BYTES.fullmatch(text):
            self._stop(number, "is no row of hexadecimal bytes")
        elif offset != len(self.config):
            self._stop(number, f"begins at {offset:#x}, expected {len(self.config):#x}")
        else:
            self.config += bytes.fromhex(text)
            if len(self.config) > MAX_CONFIG:
                del self.config[MAX_CONFIG:]
                self._stop(number, "goes beyond 4096 bytes")

    def find(self, code: str, why: str) -> None:
        """Add a finding, unless there is one with the same code."""
        if all(finding.code != code for finding in self.findings):
            self.findings.append(Finding(code, why))

    def _stop(self, number: int, what: str) -> None:
        """Ignore all further rows, and add a finding about the line `number`; `what` says what is wrong."""
        self._broken = True
        self.find(
            "dump-malformed", f"line {number} of the dump {what}: config space from there on is unknown"
        )


def _rejoined(lines: Iterable[Line]) -> Iterator[Line]:
    """Yield the lines; one that mail has broken at a place where lspci breaks none is put together again."""
    held: Line | None = None
    for line in lines:
        if held is not None and held.text and _belongs(held.text, line.text):
            held = attrs.evolve(held, text=f"{held.text} {line.text}")
            continue
        if held is not None:
            yield held
        held = line
    if held is not None:
        yield held


@attrs.define
class _Paths:
    """Finds the bus of functions that `lspci -P` names by path: what was read of the bridge above tells it.

    `blocks` are those so far by their paths.
    """

    blocks: dict[str, Block] = attrs.field(factory=dict)

    def heading(self, found: re.Match[str], line: Line) -> Block:
        """Return a new block for a line that names a function by path; it has no place if no bus is known."""
        above = self.blocks.get(found[1].lower())
        bus = above.secondary if above is not None else None
        if above is None or bus is None:
            return Block(Sbdf(0, 0, 0, 0), line.number, last=line.number, placed=False)
        sbdf = Sbdf(above.sbdf.segment, bus, int(found[2], 16), int(found[3], 16))
        block = Block(sbdf, line.number, last=line.number)
        return self.note(found[0], _titled(block, found.string[found.end() :]))

    def note(self, path: str, block: Block) -> Block:
        """Keep a block by its path, and return it."""
        self.blocks[path.lower()] = block
        return block


def _titled(block: Block, title: str) -> Block:
    block.words.heading(title)
    return block


def _belongs(before: str, text: str) -> bool:
    """Return True if the line `text` is the rest of the line `before`.

    The end of `before` or the beginning of `text` tells it.
    """
    if _CONTINUES.match(text) or _OPEN.search(before):
        return bool(text)
    if _BYTES_ALONE.fullmatch(text) is not None:
        row = _OFFSET.match(before)
        return row is not None and _BYTES.fullmatch(f"{before[row.end() :]} {text}") is not None
    if _LONG.match(before) is not None:
        return _is_rest(before, text)
    found = _ADDRESS.match(before) or _BY_PATH.match(before)
    if found is None or before[found.end() :].lstrip()[:1] != '"' or not text:
        return False
    quotes = before.count('"')  # lspci -mm has five fields in quotes
    return (quotes < _QUOTES or quotes % 2 == 1) and not (_ADDRESS.match(text) or _BY_PATH.match(text))


def _is_rest(before: str, text: str) -> bool:
    """Return True if a line is the rest of a long line of words that mail has folded."""
    before, text = " ".join(before.split()), " ".join(text.split())  # some programs double blanks
    if not text or len(before) < _FOLDED or _ENDED.search(before):
        return False
    others = (_ADDRESS.match(text), _BY_PATH.match(text), _OFFSET.match(text), _PROMPT.search(text))
    return not any(others) and not is_line_of_words(text)


def blocks_of(lines: Iterable[Line]) -> tuple[list[Block], int]:
    """Return the text about each function, in the order of the headings, and a number of functions.

    The number is that of the functions that are left out because a path names them and leads to no bus. An
    address may occur several times. Nothing is raised.
    """
    found: list[Block] = []
    paths = _Paths()
    current: Block | None = None
    margin, heading_end, label, fields, indented = 0, 0, "", False, False
    for line in _rejoined(lines):
        text = line.text
        if not text:
            continue
        if (heading := _heading_of(line, paths)) is not None:
            heading.label, label = label, ""
            heading_end = line.number
            current, margin, fields, indented = heading, line.indent, _SLOT.match(text) is not None, False
            found.append(heading)
            continue
        if current is not None:
            row = _OFFSET.match(text) if current.early or line.indent <= margin else None
            if row is not None:
                current.add(line.number, int(row[1], 16), text[row.end() :])
                continue
            if fields and (field := _FIELD.match(text)) is not None:
                current.words.field(field[1].lower(), field[2])
                current.last = line.number
                continue
            if line.number == heading_end + 1 and current.words.continues_heading(text):
                current.words.heading(f"{current.words.title} {text}")
                heading_end = line.number
                continue
            if not current.early:
                current.words.line(text)
        indented = indented or line.indent > margin
        #  where mail took the indentation away, words look like a label
        if line.indent <= margin and (current is None or indented or not current.words.detailed):
            label = text[:_MOST_LABEL]
    placed = [each for each in found if each.placed]
    return [each for each in placed if each.is_heading], len(found) - len(placed)


def _heading_of(line: Line, paths: _Paths) -> Block | None:
    """Return a new block if the line is the heading of a function, else None."""
    text, ids = line.text, None
    if (before := _BEFORE.match(text)) is not None:
        text = text[before.end() :]
        ids = _IDS_FIRST.search(before[0])
    if (slot := _SLOT.match(text)) is not None:
        text = text[slot.end() :]
    if (found := _ADDRESS.match(text)) is not None:
        first, *numbers = found.groups()
        segment = numbers[0] or (first or "0").rstrip(":")
        block = Block(_sbdf([segment, *numbers[1:]]), line.number, last=line.number)
        _titled(block, text[found.end() :])
        if ids is not None and block.words.vendor is None:
            block.words.vendor, block.words.device = int(ids[1], 16), int(ids[2], 16)
        return paths.note(found[0], block)
    if (found := _BY_PATH.match(text)) is not None:
        return paths.heading(found, line)
    if (found := _EARLY.search(text[:200])) is not None:
        return Block(_sbdf(found.groups()), line.number, last=line.number, early=True)
    return None


def _sbdf(parts: Sequence[str | None]) -> Sbdf:
    segment, bus, device, function = (int(part or "0", 16) for part in parts)
    return Sbdf(segment, bus, device, function)
