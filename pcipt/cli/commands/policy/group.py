"""Keep physical devices for guests: by their place and identity, not by an address that the next boot gives
to another device.

add      keep a function for guests
remove   give it up
list     the functions that are kept, and where they are now
check    is every one what was expected
snippet  the lines for xl, the kernel's command line, Qubes OS, or xapi
apply    release what is kept (at boot a unit does this)
compile  write the list for the initramfs anew, after files were edited
"""

import argparse
import importlib

_MODULES = {
    "add": "add",
    "remove": "remove",
    "list": "list",
    "check": "check",
    "snippet": "snippet",
    "apply": "apply",
    "compile": "compile",
}

EXAMPLES = (
    ("pcipt policy add 03:00.0 --guest web", "keep this device, as it is now, for the guest web"),
    ("pcipt policy check", "is each device where and what it was"),
    ("pcipt policy snippet --xl", "the line for the guest's configuration, with today's addresses"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, module_name in _MODULES.items():
        module = importlib.import_module(f"pcipt.cli.commands.policy.{module_name}")
        part = commands.add_parser(name, about=module.__doc__, examples=module.EXAMPLES)
        module.add_arguments(part)
        part.set_defaults(run_part=module.run)


def run(args: argparse.Namespace) -> int:
    code: int = args.run_part(args)
    return code
