"""Record this machine into a directory: the closed list of files that pcipt reads of it, and nothing else.

What was recorded is read by `pcipt list --root DIR` and by every other command that takes --root.
"""

import argparse
import sys

from pcipt.cli.render import count_text
from pcipt.errors import printable
from pcipt.host.recorder import record_machine

SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIR", help="a new or empty directory")
    parser.add_argument("--root", metavar="SRC", default="/", help="record a recorded machine again")


def run(args: argparse.Namespace) -> int:
    recorded = record_machine(args.root, args.directory)
    for path, why in recorded.left_out[:SHOWN]:
        print(f"pcipt: left out {printable(path)}: {printable(why)}", file=sys.stderr)
    if len(recorded.left_out) > SHOWN:
        print(f"pcipt: left out {len(recorded.left_out) - SHOWN} more", file=sys.stderr)
    print(
        f"recorded {count_text(recorded.functions, 'function')}, {count_text(recorded.files, 'file')}, "
        f"in {printable(args.directory)}; say in its README.md what it is"
    )
    return 0
