"""Commands that have parts, such as `pcipt pvh layout`. The module of a part is like that of a command."""

import argparse
import importlib
from collections.abc import Iterable


def add_parts(parser: argparse.ArgumentParser, command: str, parts: Iterable[str]) -> None:
    """Add the parts of a command to its parser: each is the module of this name in commands/COMMAND.

    The parsed value `part` is the name of the part that the user chose. `refuse` ends the program with a text
    about a wrong option.
    """
    commands = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name in parts:
        module = importlib.import_module(f"pcipt.cli.commands.{command}.{name}")
        part = commands.add_parser(name, about=module.__doc__, examples=module.EXAMPLES)
        module.add_arguments(part)
        part.set_defaults(run_part=module.run, refuse=part.error)


def run_part(args: argparse.Namespace) -> int:
    """Run the part that the user chose; return its exit code. Raises: every error of the part."""
    code: int = args.run_part(args)
    return code
