"""Writes registers of the hardware through dom0's Linux and reads them back: decode, BARs, bus numbers.

A renumbered function does not answer at the address that Linux has for it. It is reached by a detour: the
bridges above it get their old bus numbers for a moment. If one does not keep them, all get their new numbers
back, and an error is raised.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from pcipt.engine.interfaces import Host
from pcipt.errors import HypervisorError, PciptError, UnsupportedError
from pcipt.pci import Address, Function, Sbdf, decode_function
from pcipt.pci.bars import IO_SPACE, ROM_INDEX, TYPE_64, TYPE_MASK, name_of_bar
from pcipt.pci.config import BUS_NUMBERS, COMMAND, COMMAND_MEMORY, ROM_WORDS, Register, bar_word
from pcipt.remap.detour import Detour, Hop

WORD = 0xFFFF_FFFF
TYPE_BITS, ROM_BITS = 0xF, 0x7FF
HEADER_TYPE, MULTIFUNCTION = Register(0x0E, 1), 0x80
VENDOR, NOBODY = Register(0x00, 2), 0xFFFF


class Registers:
    """Writes registers of functions through dom0's Linux, and reads each one back."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @contextmanager
    def memory_decode_off(self, sbdf: Sbdf) -> Iterator[None]:
        """Switch memory decode of a function off for the time of the `with` block, then restore its Command
        register.

        Xen before 4.19 panics on a PVH dom0 if it fails to add a function that decodes memory.
        Raises: PciptError if decode cannot be switched off (the block is then not entered), or if the
                register cannot be restored or does not keep memory decode. After an error of the block the
                register is not read back.
        """
        command = self._switch_off(sbdf)
        try:
            yield
        finally:
            self._host.write_register(sbdf, COMMAND, command)
        self._verify(sbdf, COMMAND, command, COMMAND_MEMORY, "memory decode")

    @contextmanager
    def decode_kept(self, sbdf: Sbdf) -> Iterator[None]:
        """Restore the Command register of a function if the `with` block fails and leaves memory decode off.

        On a PVH dom0, vPCI switches decode off to size the BARs, and on again when the BARs are mapped: after
        a failed add it stays off.
        Source: Xen drivers/vpci/header.c (init_header, vpci_process_pending), passthrough/pci.c
                (pci_add_device).
        Raises: PciptError if the register cannot be read (the block is then not entered) or restored.
        """
        command = self._host.read_register(sbdf, COMMAND)
        try:
            yield
        except HypervisorError:
            if command & COMMAND_MEMORY & ~self._host.read_register(sbdf, COMMAND):
                self._host.write_register(sbdf, COMMAND, command)
            raise

    def add_by_detour(
        self,
        sbdf: Sbdf,
        detour: Detour,
        add: Callable[[], None],
        *,
        decode_off: bool,
        refuse: Callable[[Function], str | None] = lambda _function: None,
    ) -> None:
        """Check that the function answers at `sbdf`, its address in Linux; for a VF, check its PF instead.

        Read the function there, too: a reset that nobody has seen may have cleared its BARs. `refuse` returns
        why Xen must not be told of the function that was read, None if it may be told.
        Then call `add`, which tells Xen of the function at its new address. The bridges of the detour get
        Linux's bus numbers for the check, and their new ones back before `add`.
        If `decode_off` is True, memory decode is off while `add` runs. The Command register is restored after
        it, whether or not `add` fails.
        Raises: PciptError if nothing answers, if `refuse` returns a reason, or if a register does not keep
                its value. Errors of `add`. The bridges have their new numbers then, unless writing these
                numbers failed.
        """
        command = None
        with self._numbers_of_linux(detour):
            if self._host.read_register(detour.witness, VENDOR) == NOBODY:
                raise UnsupportedError(
                    "following it",
                    (f"nothing answers at {detour.witness} when the bridges have their old bus numbers"),
                )
            raw = self._host.read_function(sbdf)
            why = refuse(decode_function(raw)) if raw is not None else None
            if why is not None:
                cure = "give the bridge above the function the bus number that Linux knows"
                raise UnsupportedError("following it", f"{why}; {cure}")
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
        """Write an address to a BAR or ROM that decodes: decode off, write, read back, decode on, read back.

        A ROM gets its enable bit back, which a reset clears.

        Raises: PciptError for a BAR that cannot hold the address, or if a register cannot be written or does
                not keep its value. If the BAR fails, BAR and decode are restored. If restoring the BAR fails,
                too, decode stays off, because no guard has checked the address that is in the BAR then. If
                decode does not come on again, the BAR keeps its new address.
        """
        words = self._words(sbdf, bar)
        if address >> 32 * len(words):
            raise UnsupportedError("rewriting a BAR", f"{name_of_bar(bar)} of {sbdf} has only 32 bits")
        before = [self._host.read_register(sbdf, word) for word, _ in words]
        wanted = [
            address >> 32 * number & WORD & ~fixed | before[number] & fixed | (bar == ROM_INDEX)
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

    def rewrite_command(self, sbdf: Sbdf) -> None:
        """Write to the Command register of a function the value that it has, so that vPCI traps the write.

        Raises: PciptError if the register cannot be read or written, or if its memory decode bit has changed.
        """
        command = self._host.read_register(sbdf, COMMAND)
        self._host.write_register(sbdf, COMMAND, command)
        self._verify(sbdf, COMMAND, command, COMMAND_MEMORY, "memory decode")

    def _put_words(
        self, sbdf: Sbdf, bar: int, words: Sequence[tuple[Register, int]], values: Sequence[int]
    ) -> None:
        """Write the words of a BAR and read each back.

        Raises: PciptError if a word cannot be written, or does not keep its address bits.
        """
        for (word, _), value in zip(words, values, strict=True):
            self._host.write_register(sbdf, word, value)
        for (word, fixed), value in zip(words, values, strict=True):
            self._verify(sbdf, word, value, WORD & ~fixed, name_of_bar(bar))

    def _words(self, sbdf: Sbdf, bar: int) -> list[tuple[Register, int]]:
        """Return the registers of a memory BAR or ROM, each with the mask of its bits that hold no
        address.

        Raises: UnsupportedError for an I/O BAR, and for a ROM of a header type that has none.
        """
        if bar == ROM_INDEX:
            layout = self._host.read_register(sbdf, HEADER_TYPE) & ~MULTIFUNCTION
            if layout not in ROM_WORDS:
                raise UnsupportedError("rewriting a BAR", f"{sbdf} has no ROM")
            return [(ROM_WORDS[layout], ROM_BITS)]
        low = self._host.read_register(sbdf, bar_word(bar))
        if low & IO_SPACE:
            raise UnsupportedError("rewriting a BAR", f"BAR {bar} of {sbdf} is for I/O ports")
        wide = [(bar_word(bar + 1), 0)] if low & TYPE_MASK == TYPE_64 else []
        return [(bar_word(bar), TYPE_BITS), *wide]

    @contextmanager
    def _numbers_of_linux(self, detour: Detour) -> Iterator[None]:
        """Give the bridges of a detour the bus numbers that Linux knows, for the time of the `with` block.

        Outer bridges get them first and lose them last.
        """
        with ExitStack() as stack:
            for hop in detour.hops:
                stack.enter_context(self._numbers_of_hop(hop))
            yield

    @contextmanager
    def _numbers_of_hop(self, hop: Hop) -> Iterator[None]:
        """Give one bridge of a detour Linux's bus numbers for the time of the `with` block.

        A bridge that has this secondary bus already, and at least this subordinate bus, is not written.
        """
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
        """Switch memory decode off and return the former Command register.

        Raises: UnsupportedError if decode stays on; the register is then restored.
        """
        command = self._host.read_register(sbdf, COMMAND)
        self._host.write_register(sbdf, COMMAND, command & ~COMMAND_MEMORY)
        if self._host.read_register(sbdf, COMMAND) & COMMAND_MEMORY:
            self._host.write_register(sbdf, COMMAND, command)
            raise UnsupportedError("memory decode", f"it cannot be switched off at {sbdf}")
        return command

    def _verify(self, sbdf: Sbdf, register: Register, wanted: int, mask: int, what: str) -> None:
        """Read a register; raise UnsupportedError if it differs from `wanted` in the bits of `mask`."""
        seen = self._host.read_register(sbdf, register)
        if (seen ^ wanted) & mask:
            raise UnsupportedError(what, f"pcipt wrote {wanted:#x} to {sbdf}, and read {seen:#x} after that")
