"""Stop keeping a function for guests: dom0's drivers get it at the next boot.

SBDF is the PCI path of an entry, or the address of the function that is at this path now. A function that a
guest has stays with the guest, and a function in quarantine stays in quarantine; `pcipt reclaim` takes such a
function back. Only the table of this entry is removed from its file; other tables and comments stay.
Afterwards make the initramfs anew.

Exit codes: 0 done, 1 failed, 5 not root, 6 no entry has this path.
"""

import argparse

from pcipt.cli.machine.handover import complain
from pcipt.cli.machine.policy import INITRAMFS, add_policy_arguments, see
from pcipt.errors import AddressError, NoSuchDeviceError, printable
from pcipt.host.policy.policy_files import remove_entry
from pcipt.pci import PciPath, Sbdf, parse_target
from pcipt.pci.address import parse_path
from pcipt.pci.policy.resolve import Resolution

EXAMPLES = (
    ("pcipt policy remove 00_1c.0-00_00.0", "by its path, also if the device is gone"),
    ("pcipt policy remove 03:00.0", "by the address that it has now"),
)


class NoSuchEntryError(NoSuchDeviceError):
    """Raised when the policy has no entry that `address` names. `nearest` lists paths of some entries."""

    def __str__(self) -> str:
        hint = f" (entries: {', '.join(self.nearest)})" if self.nearest else ""
        return f"the policy has no entry {printable(self.address)}{hint}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sbdf", metavar="SBDF", help="PCI path of the entry, or address of the function at this path"
    )
    add_policy_arguments(parser)


def run(args: argparse.Namespace) -> int:
    seen = see(args)
    found = _named(args.sbdf, seen.resolutions)
    remove_entry(found.entry, args.policy)
    print(f"{found.entry.path} is not kept any more")
    complain(INITRAMFS)
    return 0


def _named(text: str, resolutions: tuple[Resolution, ...]) -> Resolution:
    """Return the entry that `text` names: by its path, else by the function that is there.

    Raises: AddressError if the text is malformed; NoSuchEntryError if there is no such entry.
    """
    target = parse_target(text)
    if not isinstance(target, (PciPath, Sbdf)):
        raise AddressError(text, "function", "it names a set; give the path of one entry")
    try:
        path: PciPath | None = parse_path(text)
    except AddressError:
        path = None
    named = [each for each in resolutions if each.entry.path == path]
    named += [each for each in resolutions if each.sbdf == target]
    if named:
        return named[0]
    raise NoSuchEntryError(text, tuple(str(each.entry.path) for each in resolutions[:4]))
