"""Show whether the service is healthy, what it did, and what hardware, Linux and Xen disagree about.

Exit codes: 0 healthy, 3 the daemon is not running, 4 degraded (findings exist).
"""

import argparse
import json
import os
import sys
from typing import Any

from pcipt.cli.client import call
from pcipt.cli.options import add_json_argument, add_socket_argument
from pcipt.errors import printable

EXIT_DEGRADED = 4
DOTS = {"healthy": "32", "degraded": "33", "failed": "31"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json_argument(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing; only the exit code")
    add_socket_argument(parser)


def run(args: argparse.Namespace) -> int:
    status = call(args.socket, "Status")
    if args.json:
        indent = 2 if args.json == "pretty" else None
        print(json.dumps(status, indent=indent))
    elif not args.quiet:
        print("\n".join(render(status, colour=_wants_colour())))
    return 0 if status.get("health") == "healthy" else EXIT_DEGRADED


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def render(status: dict[str, Any], *, colour: bool) -> list[str]:
    """Lay the status out as lines, in the shape of systemctl's."""
    health = str(status["health"])
    dot = f"\033[{DOTS.get(health, '0')}m●\033[0m" if colour else "●" if sys.stdout.isatty() else "*"
    counts = status["counts"]
    known = f"{counts['known_to_xen']} known to Xen, {counts['added_by_us']} added by pcipt"
    xen = f"{status['xen']}, dom0 {status['dom0'].upper()}" if status["xen"] else "not available"
    lines = [
        f"{dot} pcipt - the PCI service of the hardware domain",
        f"     Health: {health} since {status['since']}",
        f"        Xen: {xen}",
        f"       Mode: {status['mode']}",
        f"  Functions: {counts['functions']}, {known}",
        f"     Ghosts: {counts['ghosts']}",
        f"    Orphans: {counts['orphans']}",
        f"   Findings: {counts['findings']}",
        f"   Watching: {_watching(status['watch'])}",
    ]
    if status["findings"]:
        lines += ["", "Findings:"]
        lines += [
            f"  {item['sbdf'] or '-':12} {item['code']}: {printable(item['text'])}"
            for item in status["findings"]
        ]
    if status["actions"]:
        lines += ["", "Last actions:"]
        lines += [f"  {item['when']} {action_line(item)}" for item in status["actions"]]
    return lines


def _watching(watch: dict[str, Any]) -> str:
    if watch["source"] is None:
        return "hot-plug messages only"
    text = f"{watch['source']}, {watch['writes']} writes seen, {watch['lost']} lost"
    last = watch["last_change"]
    return text if last is None else f"{text}; last change {last['when']} {last['sbdf']} {last['change']}"


def action_line(item: dict[str, Any]) -> str:
    detail = f" [{printable(item['detail'])}]" if item["detail"] else ""
    return f"{item['action']} {item['sbdf']}: {item['result']}{detail}: {printable(item['reason'])}"
