"""The machine that a command shows: live sysfs, a recorded tree (--root) or an lspci dump (--dump)."""

import argparse
from collections.abc import Callable

from pcipt.cli.text.progress import progress
from pcipt.cli.text.terminal import tell
from pcipt.errors import printable
from pcipt.hints import TYPE_CHECKING
from pcipt.host.files import Depth
from pcipt.host.sysfs import read_addresses, read_machine
from pcipt.pci import RawFunction, Sbdf

if TYPE_CHECKING:
    from pcipt.pci import Machine

Wanted = Callable[[Sbdf], bool]


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options --root and --dump to a parser; a user may give only one of them.

    The parsed values are `root` ("/" by default) and `dump` (None by default).
    """
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--root", metavar="DIR", default="/", help="read a recorded machine: DIR holds sys/, or is a report"
    )
    source.add_argument(
        "--dump",
        metavar="FILE",
        help="read what somebody sent: lspci -xxxx, -vvnn, a log with pci=earlydump; - is stdin",
    )


class Source:
    """The machine that the options --root and --dump name.

    A dump is read once, in the constructor, which says on stderr what was found. The
    files of a live or recorded machine are read by each method.

    Raises: InputError if the dump cannot be read or has no function.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._root: str = args.root
        self._dump: list[RawFunction] | None = None
        if args.dump is not None:
            from pcipt.host.dump import read_dump  # it loads much, and few need it

            found = read_dump(args.dump)
            self._dump = list(found.functions)
            for text in (found.about, *found.notes):
                tell(f"pcipt: {printable(f'{args.dump}: {text}')}")

    @property
    def knows_linux(self) -> bool:
        """Return True if facts from Linux, such as drivers, are known; False for a dump: it may lack them."""
        return self._dump is None

    def addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions in ascending order.

        Raises: InputError if the machine cannot be read.
        """
        if self._dump is not None:
            return sorted(raw.sbdf for raw in self._dump)
        return read_addresses(self._root)

    def read(self, depth: Depth, wanted: Wanted | None = None) -> list[RawFunction]:
        """Read the functions that `wanted` accepts (None: all) and the functions that decoding them needs.

        `depth` says how much of each function is read. A dump ignores `wanted` and `depth`: it returns all
        its functions. The result is not sorted by address.

        Raises: InputError if the machine cannot be read.
        """
        if self._dump is not None:
            return self._dump
        with progress("reading the machine", lambda: self._root):
            return read_machine(self._root, depth, wanted)

    def machine(self, depth: Depth, wanted: Wanted | None = None) -> "Machine":
        """Read functions as `read` does, and return them decoded, in address order.

        The result may have functions that `wanted` does not accept.

        Raises: InputError if the machine cannot be read.
        """
        from pcipt.pci import decode_machine  # `list` decodes nothing

        return decode_machine(self.read(depth, wanted))
