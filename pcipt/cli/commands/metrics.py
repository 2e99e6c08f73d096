"""Print the daemon's counters as OpenMetrics text, for Prometheus and programs that read its formats.

The textfile collector of node_exporter needs an older format. The daemon can write this older format into a
file: see metrics.textfile in pcipt.toml(5).

Exit codes: 0 done, 3 the daemon is not running, 5 not permitted.
"""

import argparse

from pcipt.cli.machine.client import call
from pcipt.cli.options import add_json_argument, add_socket_argument
from pcipt.cli.text.render import print_json

EXAMPLES = (
    ("pcipt metrics", "everything that is counted since the daemon started"),
    ("pcipt metrics | grep pcipt_actions_total", "what was done, by kind and outcome"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json_argument(parser)
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    told = call(args.socket, "Metrics")
    if args.json:
        print_json(told, args.json)
    else:
        print(told["text"], end="")
    return 0
