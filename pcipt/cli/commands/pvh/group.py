"""Show, check and build what a PVH domain gets at boot: start info, memory layout, ACPI tables.

startinfo  read hvm_start_info from an image of memory, and check it
layout     the hardware domain's address space: what is mapped where, and why
tables     build the ACPI tables of a hardware domain or a guest
check      check ACPI tables against the PVH contract
"""

import argparse
import importlib

_MODULES = {
    "startinfo": "startinfo",
    "layout": "layout",
    "tables": "tables",
    "check": "check",
}

EXAMPLES = (
    ("pcipt pvh layout", "this machine's address space as a PVH dom0 would have it"),
    ("pcipt pvh check", "this machine's ACPI tables against the contract"),
    ("pcipt help pvh tables", "more about one part"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="part", metavar="PART", required=True)
    for name, module_name in _MODULES.items():
        module = importlib.import_module(f"pcipt.cli.commands.pvh.{module_name}")
        part = commands.add_parser(name, about=module.__doc__, examples=module.EXAMPLES)
        module.add_arguments(part)
        part.set_defaults(run_part=module.run, refuse=part.error)


def run(args: argparse.Namespace) -> int:
    code: int = args.run_part(args)
    return code
