"""List the functions that are kept for guests: their state, present address, PCI path, ids, guest and note.

present   the expected device is at its place
mismatch  another device is at this place
absent    no device is at this place

Exit codes: 0 all functions are present, 4 a function is not present, 5 not root.
"""

import argparse

from pcipt.cli.machine.policy import NOTHING_KEPT, add_policy_arguments, json_from_resolution, rows_of, see
from pcipt.cli.options import add_json_argument
from pcipt.cli.text.render import print_json, say_nothing
from pcipt.cli.text.terminal import columns
from pcipt.pci.policy.resolve import State

DEGRADED = 4
EXAMPLES = (("pcipt policy list", "what is kept, and where it is now"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_policy_arguments(parser)
    add_json_argument(parser)


def run(args: argparse.Namespace) -> int:
    resolutions = see(args).resolutions
    if args.json:
        print_json({"entries": [json_from_resolution(each) for each in resolutions]}, args.json)
    else:
        if not resolutions:
            say_nothing(NOTHING_KEPT)
        for line in rows_of(resolutions, columns()):
            print(line)
    return 0 if all(each.state is State.PRESENT for each in resolutions) else DEGRADED
