"""Show changes, actions, findings and hot-plug live, one line for each event.

If the output is not read fast enough, pcipt drops events, and a line shows how many.

If the machine has no function that matches -s, a line on stderr says so and names similar addresses; pcipt
then waits until such a function appears. The command ends with Ctrl-C or when the daemon stops.

Exit codes: 2 malformed filter, 3 the daemon is not running or has stopped, 5 not permitted, 130 Ctrl-C.
"""

import argparse
import json

from pcipt.cli.machine.client import checked_address, stream
from pcipt.cli.options import add_colour_argument, add_json_lines_argument, add_socket_argument
from pcipt.cli.text.event_text import lines_from_event
from pcipt.cli.text.terminal import columns, tell, wants_colour
from pcipt.errors import NoSuchDeviceError, printable

EXAMPLES = (
    ("pcipt monitor", "everything, until Ctrl-C"),
    ("pcipt monitor -s 03:", "only the functions of bus 03"),
    ("pcipt monitor --json", "one JSON object per line, for a program"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s", "--slot", metavar="SLOT", help="show only these functions; SLOT as for `pcipt list -s`"
    )
    add_json_lines_argument(parser)
    add_colour_argument(parser)
    add_socket_argument(parser)
    parser.set_defaults(root="/", dump=None)  # the machine whose functions are suggested


def run(args: argparse.Namespace) -> int:
    colour = wants_colour(args.color)
    parameters = {} if args.slot is None else {"slot": args.slot}
    events = stream(args.socket, "Monitor", parameters)
    with checked_address(args, args.slot, slot=True):
        start = next(events)  # it confirms the subscription
    if "nearest" in start:
        absent = NoSuchDeviceError(args.slot, tuple(map(str, start["nearest"])))
        tell(f"pcipt: {printable(str(absent))}; pcipt waits until it appears")
    for event in events:
        if args.json:
            print(json.dumps(event), flush=True)
        else:
            print(*lines_from_event(event, width=columns(), colour=colour), sep="\n", flush=True)
    return 0
