"""Show what happened to a function: its last changes, actions and hot-plug events.

SBDF is the address or the PCI path of the function on the daemon's machine. If the bus of the function was
renumbered, the events from before the renumbering are shown too.

Exit codes: 0 done, 2 malformed address, 3 the daemon is not running, 5 not permitted, 6 no such device.
"""

import argparse

from pcipt.cli.machine.client import call, checked_address
from pcipt.cli.options import add_colour_argument, add_json_argument, add_socket_argument
from pcipt.cli.text.event_text import lines_from_event
from pcipt.cli.text.render import print_json, say_nothing
from pcipt.cli.text.terminal import columns, wants_colour

EXAMPLES = (
    ("pcipt history 01:00.0", "by the address that it has or had"),
    ("pcipt history 00_1c.0-00_00.0", "by its PCI path, which stays when buses are renumbered"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("sbdf", metavar="SBDF", help="the function, in any notation of addresses")
    add_json_argument(parser)
    add_colour_argument(parser)
    add_socket_argument(parser)
    parser.set_defaults(root="/", dump=None)  # the machine whose functions are suggested


def run(args: argparse.Namespace) -> int:
    with checked_address(args, args.sbdf):
        told = call(args.socket, "History", {"function": args.sbdf})
    if args.json:
        print_json(told, args.json)
        return 0
    colour, width = wants_colour(args.color), columns()
    for event in told["events"]:
        print(*lines_from_event(event, day=True, width=width, colour=colour), sep="\n")
    if not told["events"]:
        say_nothing(f"nothing has happened to {told['sbdf']} since the daemon started")
    return 0
