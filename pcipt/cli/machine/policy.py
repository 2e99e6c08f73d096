"""The policy beside the machine: what each entry means now, as values, JSON and text."""

import argparse
import os
from collections.abc import Sequence

from pcipt import values as attrs
from pcipt.cli.machine.source import Source
from pcipt.cli.text.render import table
from pcipt.errors import NotPermittedError, printable
from pcipt.host.files import Depth
from pcipt.host.policy.caught import HOOK, read_caught
from pcipt.host.policy.places import read_identities
from pcipt.host.policy.policy_files import DIRECTORY, is_compiled, read_entries
from pcipt.host.policy.written_lines import lines_of_guest
from pcipt.host.toolstack import PCIBACK, Toolstack
from pcipt.pci import Machine, Sbdf, decode_machine
from pcipt.pci.identity import Identity, shown_fields
from pcipt.pci.policy.entries import Entry
from pcipt.pci.policy.resolve import Resolution, State, brief, kept_for, mismatch_text, moved_text, resolve
from pcipt.pci.policy.written import STALE as STALE_LINE
from pcipt.pci.policy.written import wrong_lines

LIVE = "/"
NOTHING_KEPT = "the policy keeps no function for guests; `pcipt policy add` keeps one"
INITRAMFS = "make the initramfs anew (`update-initramfs -u`, or `dracut --force`) before the next boot"
STALE = (
    f"the list for the initramfs does not agree with the policy: run `pcipt policy compile`, then {INITRAMFS}"
)


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --root (the machine) and --policy (the directory of the policy) to a parser."""
    parser.set_defaults(dump=None)
    parser.add_argument("--root", metavar="DIR", default=LIVE, help="read a recorded machine: DIR holds sys/")
    add_directory_argument(parser)


def add_directory_argument(parser: argparse.ArgumentParser) -> None:
    """Add --policy (the directory of the policy and of the settings file) to a parser."""
    parser.add_argument(
        "--policy", metavar="DIR", default=DIRECTORY,
        help=f"the directory with passthrough.d and pcipt.toml; default: {DIRECTORY}",
    )  # fmt: skip


@attrs.frozen
class Seen:
    """A machine, the identity of each function, and what each entry of the policy means there."""

    machine: Machine
    identities: dict[Sbdf, Identity]
    resolutions: tuple[Resolution, ...]


def require_root_here(args: argparse.Namespace) -> None:
    """Raise NotPermittedError if the running machine is asked for and the user is not root.

    Others cannot read serial numbers, neither of devices nor of the policy.
    """
    if args.root == LIVE and os.geteuid() != 0:
        raise NotPermittedError(f"policy {args.part}", "only root may do that")


def see(args: argparse.Namespace) -> Seen:
    """Read the machine and the policy. Raises: InputError if one of them cannot be read."""
    require_root_here(args)
    return _seen(args, read_entries(args.policy))


def _seen(args: argparse.Namespace, entries: Sequence[Entry]) -> Seen:
    """Read the machine, and find what the entries of a policy mean there. Raises: InputError."""
    raws = Source(args).read(Depth.FULL)
    machine = decode_machine(raws)
    identities = read_identities(args.root, machine, raws)
    return Seen(machine, identities, resolve(entries, identities))


def against_policy(args: argparse.Namespace, path: str) -> list[str]:
    """Return in which way the guest's file `path` names other functions than the policy keeps, in words.

    The policy is that of this machine, which only root may read, or of the directory `args.policy`. For
    others and for a recorded machine without a directory there is none.
    """
    here = args.dump is None and args.root == LIVE and os.geteuid() == 0
    directory = args.policy or (DIRECTORY if here else None)
    entries = read_entries(directory) if directory is not None else ()
    if not entries or args.dump is not None:
        return []
    seen = _seen(args, entries)
    found = wrong_lines(lines_of_guest(path), seen.resolutions, seen.identities)
    return [each.text for each in found if each.code == STALE_LINE]


def json_from_resolution(resolution: Resolution) -> dict[str, object]:
    """Return the JSON object of one entry and what it means now."""
    entry, secret = resolution.entry, os.geteuid() == 0
    return {
        "path": str(entry.path),
        "guest": entry.guest or None,
        "note": entry.note or None,
        "file": entry.source,
        "state": resolution.state.value,
        "sbdf": str(resolution.sbdf) if resolution.sbdf is not None else None,
        "expected": shown_fields(entry.expected, secret=secret),
        "found": shown_fields(resolution.found, secret=secret) if resolution.found is not None else None,
        "differences": [each.field for each in resolution.differences],
        "moved": str(resolution.moved) if resolution.moved is not None else None,
    }


def rows_of(resolutions: Sequence[Resolution], width: int | None = None) -> list[str]:
    """Return a row for each entry: its state, address now, path, ids, guest, note; folded to `width`."""
    rows = [
        (
            each.state.value,
            str(each.sbdf) if each.sbdf is not None else "-",
            str(each.entry.path),
            brief(each.entry.expected),
            printable(" ".join(text for text in (kept_for(each.entry), each.entry.note) if text)),
        )
        for each in resolutions
    ]
    return table(rows, width=width)


def complaints_of(resolutions: Sequence[Resolution]) -> list[str]:
    """Return what is wrong with the entries, in words with a cure: a text for each that is not present."""
    return [text for each in resolutions if (text := _complaint(each)) is not None]


def _complaint(resolution: Resolution) -> str | None:
    """Return what is wrong with an entry, in words with a cure; None if nothing is."""
    if resolution.state is State.PRESENT:
        return None
    if resolution.state is State.MISMATCH:
        return mismatch_text(resolution, secret=os.geteuid() == 0)
    entry = resolution.entry
    return (
        f"no device is at {entry.path}, kept by the policy for {kept_for(entry)}{moved_text(resolution)}; "
        f"if the device will not come back to this path, run `pcipt policy remove {entry.path}`"
    )


def open_files(resolutions: Sequence[Resolution]) -> list[str]:
    """Return a complaint for each file that has serial numbers and that others than root may read."""
    sources = dict.fromkeys(each.entry.source for each in resolutions if each.entry.expected.serial)
    return [
        f"{path} has serial numbers, but not only root may read this file: move its entries into "
        f"passthrough.d, or run `chmod 600 {path}`"
        for path in sources
        if _mode(path) & 0o077
    ]


def kept_by_an_old_list(args: argparse.Namespace, seen: Seen) -> list[str]:
    """Return a complaint for each function that the initramfs, made before, has kept against the policy."""
    toolstack, kept = Toolstack(args.root), {each.kept for each in seen.resolutions}
    return [
        f"{sbdf} was kept from dom0's drivers at boot by {HOOK}, and the policy does not keep it: "
        f"`pcipt reclaim {sbdf}` gives it to dom0; {INITRAMFS}"
        for sbdf in sorted(read_caught(args.root))
        if sbdf in seen.machine.functions and sbdf not in kept and toolstack.driver(sbdf) in (None, PCIBACK)
    ]


def _mode(path: str) -> int:
    """Return the mode of a file; 0 if it is gone."""
    try:
        return os.stat(path).st_mode
    except OSError:
        return 0


def stale_list(args: argparse.Namespace, seen: Seen) -> str | None:
    """Return a complaint if the list for the initramfs does not say what the policy says; else None."""
    return None if is_compiled([each.entry for each in seen.resolutions], args.policy) else STALE
