"""Show what differs between two recordings of a machine, or between a recording and this machine.

Functions are compared by place (PCI path) and identity. A function can be new, gone, moved (the same device
at another place), renumbered (the same place has another address) or replaced (another device at the same
place). Then BAR sizes, groups and reserved regions are compared.

DIR and SRC are directories made by `pcipt record`. Without SRC, DIR is compared with this machine. Without
DIR, the recording of the boot before this one is taken: a systemd unit records each boot. Serial numbers are
compared only if both recordings have them; `pcipt record` masks serial numbers unless it has the option
--keep serial.

Exit codes: 0 nothing differs, 4 something differs, 1 a recording cannot be read.
"""

import argparse
import os

from pcipt.cli.machine.changes import read_state
from pcipt.cli.options import add_json_argument, add_legend_argument
from pcipt.cli.text.render import count_text, print_json, say_nothing, table
from pcipt.cli.text.terminal import columns, on_terminal, tell
from pcipt.errors import InputError, printable
from pcipt.firmware.machine_changes import Change, changes_between, is_masked
from pcipt.host.live import LinuxHost
from pcipt.host.policy.boots import DIRECTORY, last_boot
from pcipt.pci.identity import Identity, shown_fields

DEGRADED = 4
EXAMPLES = (
    ("pcipt diff", "what has changed since the boot before this one"),
    ("pcipt diff before", "what has changed since the recording in the directory `before`"),
    ("pcipt diff before after --json=pretty", "two recordings, for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "before",
        metavar="DIR",
        nargs="?",
        help="the earlier state, a recording; default: the boot before this one",
    )
    parser.add_argument(
        "after",
        metavar="SRC",
        nargs="?",
        default="/",
        help="the later state, a recording; default: this machine",
    )
    add_json_argument(parser)
    add_legend_argument(parser)


def run(args: argparse.Namespace) -> int:
    before = args.before if args.before is not None else last_boot(LinuxHost().boot_id)
    if before is None:
        raise InputError(
            DIRECTORY,
            "has no recording of an earlier boot; name one: `pcipt diff DIR`; `pcipt record DIR` makes one",
        )
    states = {before: read_state(before), args.after: read_state(args.after)}
    found = changes_between(states[before], states[args.after])
    if args.json:
        print_json({"changes": [json_from_change(each) for each in found]}, args.json)
        return DEGRADED if found else 0
    rows = [(each.kind.value, str(each.after or each.before), printable(each.text)) for each in found]
    for name in (name for name, state in states.items() if is_masked(state)):
        tell(f"note: serial numbers are not compared: they are masked in {printable(name)}")
    if not found:
        say_nothing("no changes")
    for line in table(rows, width=columns()):
        print(line)
    if on_terminal() and not args.no_legend:
        print(f"{count_text(len(found), 'change')}.")
    return DEGRADED if found else 0


def json_from_change(change: Change) -> dict[str, object]:
    """Return the JSON object of one difference."""
    return {
        "kind": change.kind.value,
        "before": str(change.before) if change.before is not None else None,
        "after": str(change.after) if change.after is not None else None,
        "was": _identity(change.was),
        "now": _identity(change.now),
        "text": change.text,
    }


def _identity(identity: Identity | None) -> dict[str, str] | None:
    return None if identity is None else shown_fields(identity, secret=os.geteuid() == 0)
