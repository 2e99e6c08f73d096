"""What is written to hardware itself, through dom0's Linux and read back: decode, BARs, bus numbers.

A function that renumbered buses took away from Linux's address is reached by a detour: the bridges above it
get the old numbers for a moment. Each step is checked; where one does not take, the new numbers are put in
and it is said.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pcipt.engine.interfaces import Host
from pcipt.errors import PciptError, UnsupportedError
from pcipt.pci import Address, Sbdf
from pcipt.pci.bars import IO_SPACE, ROM_INDEX, TYPE_64, TYPE_MASK
from pcipt.pci.config import BUS_NUMBERS, COMMAND, COMMAND_MEMORY, ROM_WORDS, Register, bar_word
from pcipt.remap.detour import Detour, Hop
from pcipt.remap.plan_mappings import name_of_bar

WORD = 0xFFFF_FFFF
TYPE_BITS, ROM_BITS = 0xF, 0x7FF
HEADER_TYPE, MULTIFUNCTION = Register(0x0E, 1), 0x80
VENDOR, NOBODY = Register(0x00, 2), 0xFFFF


class Registers:
    def __init__(self, host: Host) -> None:
        self._host = host

    @contextmanager
    def memory_decode_off(self, sbdf: Sbdf) -> Iterator[None]:
        """Keep memory decode off meanwhile: a failing add of a decoding function panics Xen 4.17 (PVH).

        Raises: PciptError where the register cannot be written or does not obey; the call is then not made.
        """
        command = self._switch_off(sbdf)
        try:
            yield
        finally:
            self._host.write_register(sbdf, COMMAND, command)

    def add_by_detour(self, sbdf: Sbdf, detour: Detour, add: Callable[[], None], *, decode_off: bool) -> None:
        """See at Linux's address that hardware is there, then add at the new one.

        With `decode_off` decode is switched off at Linux's address before, and on again after it.
        Raises: PciptError where nothing answers or a register does not obey; the bridges then have their new
                numbers.
        """
        command = None
        with self._numbers_of_linux(detour):
            if self._host.read_register(detour.witness, VENDOR) == NOBODY:
                raise UnsupportedError(
                    "following it", f"nothing answers at {detour.witness} with its old numbers"
                )
            if decode_off:
                command = self._switch_off(sbdf)
        try:
            add()
        finally:
            if command is not None:
                with self._numbers_of_linux(detour):
                    self._host.write_register(sbdf, COMMAND, command)
                    self._verify(sbdf, COMMAND, command, COMMAND_MEMORY, "memory decode")

    def rewrite_bar(self, sbdf: Sbdf, bar: int, address: Address) -> None:
        """Give a BAR that decodes another address: decode off, write, read back, decode on, read back.

        Raises: PciptError; BAR and decode are then as they were. Where the BAR cannot be put back either,
                decode stays off: nothing may answer at an address that no guard has seen.
        """
        words = self._words(sbdf, bar)
        if address >> 32 * len(words):
            raise UnsupportedError("rewriting a BAR", f"{name_of_bar(bar)} of {sbdf} has only 32 bits")
        before = [self._host.read_register(sbdf, word) for word, _ in words]
        wanted = [
            address >> 32 * number & WORD & ~fixed | before[number] & fixed
            for number, (_, fixed) in enumerate(words)
        ]
        command = self._switch_off(sbdf)
        try:
            self._put_words(sbdf, bar, words, wanted)
        except PciptError:
            self._put_words(sbdf, bar, words, before)
            self._host.write_register(sbdf, COMMAND, command)
            raise
        self._host.write_register(sbdf, COMMAND, command)
        # vPCI leaves decode off where it cannot map (xen/drivers/vpci/header.c, vpci_process_pending)
        self._verify(sbdf, COMMAND, command, COMMAND_MEMORY, "memory decode")

    def _put_words(
        self, sbdf: Sbdf, bar: int, words: Sequence[tuple[Register, int]], values: Sequence[int]
    ) -> None:
        for (word, _), value in zip(words, values, strict=True):
            self._host.write_register(sbdf, word, value)
        for (word, fixed), value in zip(words, values, strict=True):
            self._verify(sbdf, word, value, WORD & ~fixed, name_of_bar(bar))

    def _words(self, sbdf: Sbdf, bar: int) -> list[tuple[Register, int]]:
        """List the registers of a BAR, each with its bits that are no address."""
        if bar == ROM_INDEX:
            layout = self._host.read_register(sbdf, HEADER_TYPE) & ~MULTIFUNCTION
            if layout not in ROM_WORDS:
                raise UnsupportedError("rewriting a BAR", f"{sbdf} has no ROM")
            return [(ROM_WORDS[layout], ROM_BITS)]
        low = self._host.read_register(sbdf, bar_word(bar))
        if low & IO_SPACE:
            raise UnsupportedError("rewriting a BAR", f"BAR {bar} of {sbdf} is one of ports")
        wide = [(bar_word(bar + 1), 0)] if low & TYPE_MASK == TYPE_64 else []
        return [(bar_word(bar), TYPE_BITS), *wide]

    @contextmanager
    def _numbers_of_linux(self, detour: Detour) -> Iterator[None]:
        """Keep the old numbers meanwhile; inner bridges answer last and are the first to get theirs back."""
        with ExitStack() as stack:
            for hop in detour.hops:
                stack.enter_context(self._numbers_of_hop(hop))
            yield

    @contextmanager
    def _numbers_of_hop(self, hop: Hop) -> Iterator[None]:
        now = self._host.read_register(hop.bridge, BUS_NUMBERS)
        if now >> 8 & 0xFF == hop.secondary and now >> 16 & 0xFF >= hop.subordinate:
            yield  # it has not moved
            return
        then = now & 0xFF00_00FF | hop.secondary << 8 | hop.subordinate << 16
        try:
            self._host.write_register(hop.bridge, BUS_NUMBERS, then)
            self._verify(hop.bridge, BUS_NUMBERS, then, 0xFF_FF00, "the bus numbers")
            yield
        finally:
            self._host.write_register(hop.bridge, BUS_NUMBERS, now)
            self._verify(hop.bridge, BUS_NUMBERS, now, 0xFF_FF00, "the bus numbers")

    def _switch_off(self, sbdf: Sbdf) -> int:
        command = self._host.read_register(sbdf, COMMAND)
        self._host.write_register(sbdf, COMMAND, command & ~COMMAND_MEMORY)
        if self._host.read_register(sbdf, COMMAND) & COMMAND_MEMORY:
            self._host.write_register(sbdf, COMMAND, command)
            raise UnsupportedError("memory decode", f"{sbdf} does not let it be switched off")
        return command

    def _verify(self, sbdf: Sbdf, register: Register, wanted: int, mask: int, what: str) -> None:
        seen = self._host.read_register(sbdf, register)
        if (seen ^ wanted) & mask:
            raise UnsupportedError(what, f"{sbdf} was given {wanted:#x} and reads {seen:#x}")
