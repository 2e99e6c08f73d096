"""Check the policy against the machine: is each kept function at its place, and is it the expected device.

If a function is wrong, the output shows the expected and the present identity, and what helps. The command
also checks whether the list for the initramfs is up to date, what an old initramfs has kept, and whether the
lines of other tools are right: xen-pciback.hide= and rd.qubes.hide_pci= on the kernel's command line,
`options xen-pciback hide=` in modprobe.d, pci= in /etc/xen/*.cfg and /etc/xen/auto. If a line names no device
or a wrong device, the output shows the right line.

If a kept function has changed since the boot before this one, for example its address, the output says so
until the next boot.

Exit codes: 0 all is as expected, 4 something is wrong or has changed, 5 not root.
"""

import argparse
from collections.abc import Sequence

from pcipt.cli.machine.changes import read_state
from pcipt.cli.machine.policy import (
    LIVE,
    NOTHING_KEPT,
    add_policy_arguments,
    complaints_of,
    json_from_resolution,
    kept_by_an_old_list,
    open_files,
    see,
    stale_list,
)
from pcipt.cli.options import add_json_argument
from pcipt.cli.text.render import count_text, print_json, say_nothing
from pcipt.cli.text.terminal import folded, prose_columns
from pcipt.errors import InputError, printable
from pcipt.firmware.machine_changes import changes_between, concerns
from pcipt.host.live import LinuxHost
from pcipt.host.policy.boots import last_boot
from pcipt.host.policy.written_lines import read_lines
from pcipt.pci.policy.resolve import Resolution, State, kept_for
from pcipt.pci.policy.written import WrongLine, wrong_lines

DEGRADED = 4
EXAMPLES = (("pcipt policy check", "is every device the expected one?"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--before",
        metavar="DIR",
        help="compare with the recording DIR; default on this machine: the boot before this one",
    )
    add_policy_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    seen = see(args)
    stale = stale_list(args, seen)
    lines = wrong_lines(read_lines(args.root), seen.resolutions, seen.identities)
    complaints = [
        *complaints_of(seen.resolutions),
        *([stale] if stale is not None else []),
        *kept_by_an_old_list(args, seen),
        *open_files(seen.resolutions),
        *(each.text for each in lines),
        *_changed(args, seen.resolutions),
    ]
    if args.json:
        entries = [json_from_resolution(each) for each in seen.resolutions]
        print_json({"entries": entries, "complaints": complaints, "lines": _shown(lines)}, args.json)
    else:
        for text in complaints:
            print("\n".join(folded(printable(text), prose_columns(), 4)))
        if not seen.resolutions:
            say_nothing(NOTHING_KEPT)
            return DEGRADED if complaints else 0
        present = sum(each.state is State.PRESENT for each in seen.resolutions)
        print(f"{count_text(len(seen.resolutions), 'function')} kept for guests, {present} as expected.")
    return DEGRADED if complaints else 0


def _changed(args: argparse.Namespace, resolutions: Sequence[Resolution]) -> list[str]:
    """Return what has changed of each kept function that is as expected; the others are told already.

    Without a recording to compare with, nothing has. Raises: InputError if the user's cannot be read.
    """
    kept = [each.entry for each in resolutions if each.state is State.PRESENT]
    before = args.before or (last_boot(LinuxHost().boot_id) if args.root == LIVE else None)
    if before is None or not kept:
        return []
    try:
        changes = changes_between(read_state(before), read_state(args.root))
    except InputError:
        if args.before is not None:
            raise
        return []
    return [
        f"{entry.path}, which is kept for {kept_for(entry)}, has changed since the boot before this one "
        f"({change.kind.value}): {change.text}; `pcipt policy snippet` prints the right lines"
        for entry in kept
        for change in changes
        if concerns(change, entry.expected)
    ]


def _shown(lines: Sequence[WrongLine]) -> list[dict[str, str | None]]:
    """Return wrong lines as JSON; "line" is None if there is no right one."""
    return [
        {"code": each.code, "where": each.where, "text": each.text, "line": each.line or None}
        for each in lines
    ]
