"""Join what stands in several places of a text about the same function, and tell machines apart.

lspci prints functions in ascending order, so a new run of it begins where an address is not above the one
before. Runs that agree about the functions that both name are of one machine and are joined by address, in
any order: words of one, bytes of another. A run that has other ids or other registers somewhere is of another
machine, or of the same one at another time. So is one with the bytes of the same functions, if each has a
function that the other lacks.
"""

from collections.abc import Iterable, Sequence

from pcipt import values as attrs
from pcipt.host.paste.blocks import Block
from pcipt.host.paste.words import ONES
from pcipt.pci import Finding, RawFunction, Sbdf
from pcipt.pci.config import HEADER_SIZE

ELSEWHERE = "duplicate-address"
MOST = 16  # machines that are told apart; what comes after them is counted with the last
_VOLATILE = (*range(0x04, 0x08), 0x0C, 0x0D, 0x1E, 0x1F, 0x3C)  # command, status, cache line, latency, IRQ


@attrs.define
class Reading:
    """One machine at one time. `label` is what stood before it, `line` and `last` its first and last line."""

    label: str
    line: int
    last: int = 0
    blocks: dict[Sbdf, Block] = attrs.field(factory=dict)

    def name(self) -> str:
        """Return how it is named: what stood before it, else the line where it begins."""
        return f'"{self.label}" (line {self.line})' if self.label else f"line {self.line}"


def readings_of(blocks: Iterable[Block]) -> list[Reading]:
    """Return the machines in a text, in their order; the list is empty if there are no blocks."""
    found: list[Reading] = []
    for run in _runs(blocks):
        fitting = [reading for reading in found if not _conflicts(reading, run)]
        if fitting:
            #  the one that names most of the same functions; the last one if none does
            chosen = max(reversed(fitting), key=lambda reading: _common(reading, run))
        elif len(found) == MOST:
            chosen = found[-1]
        else:
            chosen = Reading(run[0].label, run[0].line)
            if found:
                _tell_first(found[0], run)
            found.append(chosen)
        for block in run:
            _join(chosen, block)
    return found


def function_of(block: Block) -> RawFunction:
    """Return the function that a block describes. Its config is None if there are no bytes.

    Bytes of a boot log are older than Linux's addresses in the words, so these are not compared.
    """
    words, findings = block.words, list(block.findings)
    if words.counted and not block.config:
        why = (
            "lspci -v does not print the numbers of BARs, so pcipt counts the BARs in the order of the "
            "text. If one BAR is missing in the text, the next BARs get wrong numbers; lspci -vv prints the "
            "numbers"
        )
        findings.append(Finding("bar-numbers-counted", why))
    return RawFunction(
        block.sbdf,
        bytes(block.config) or None,
        resources=() if words.counted or block.early else words.resources,
        ids=words.ids,
        driver=words.driver,
        numa_node=words.numa_node,
        findings=tuple(findings),
        told=words.told if not block.config else None,
    )


def _runs(blocks: Iterable[Block]) -> Iterable[list[Block]]:
    """Yield the blocks in runs of ascending addresses."""
    run: list[Block] = []
    for block in blocks:
        if run and block.sbdf <= run[-1].sbdf:
            yield run
            run = []
        run.append(block)
    if run:
        yield run


def _common(reading: Reading, run: Sequence[Block]) -> int:
    return sum(block.sbdf in reading.blocks for block in run)


def _conflicts(reading: Reading, run: Sequence[Block]) -> bool:
    """Return True if the run is of another machine or time than the reading (see the module)."""
    return _moved(reading, run) or any(
        (held := reading.blocks.get(block.sbdf)) is not None and not _agree(held, block) for block in run
    )


def _moved(reading: Reading, run: Sequence[Block]) -> bool:
    """Return True if both have bytes of the same function, and each has bytes of one that the other lacks."""
    theirs = {block.sbdf for block in run if _is_late(block)}
    same = {sbdf for sbdf in theirs if (held := reading.blocks.get(sbdf)) is not None and _is_late(held)}
    if not same or same == theirs:
        return False
    return any(_is_late(held) and sbdf not in theirs for sbdf, held in reading.blocks.items())


def _is_late(block: Block) -> bool:
    """Return True if a block has bytes, and not those of a boot log, which are of another time anyway."""
    return bool(block.config) and not block.early


def _agree(one: Block, other: Block) -> bool:
    """Return True if two blocks can be of the same function at the same time."""
    if one.identity is not None and other.identity is not None and one.identity != other.identity:
        return False
    revisions = {one.words.revision, other.words.revision} - {None}
    if len(revisions) > 1 and ONES in revisions:  # it has ceased to answer between them
        return False
    if one.config and other.config:
        size = min(len(one.config), len(other.config), HEADER_SIZE)
        return all(one.config[at] == other.config[at] for at in range(size) if at not in _VOLATILE)
    if one.identity is None and other.identity is None:
        return not one.words.title or not other.words.title or one.words.title == other.words.title
    return True


def _join(reading: Reading, block: Block) -> None:
    """Add a block to a machine; where it has the address, the longer bytes and all words are kept."""
    reading.last = max(reading.last, block.last)
    held = reading.blocks.setdefault(block.sbdf, block)
    if held is block:
        return
    held.words.merge(block.words)
    if len(block.config) > len(held.config):
        kept = [finding for finding in held.findings if finding.code == ELSEWHERE]
        held.config, held.findings, held.early = block.config, [*block.findings, *kept], block.early


def _tell_first(first: Reading, run: Sequence[Block]) -> None:
    """Add a finding to each function of the first machine that another one has as well."""
    for block in run:
        if (held := first.blocks.get(block.sbdf)) is not None and not _agree(held, block):
            held.find(
                ELSEWHERE,
                f"line {block.line} names this function again with other ids or registers: this is another "
                "machine, or the same machine at another time; pcipt reads only the first",
            )
