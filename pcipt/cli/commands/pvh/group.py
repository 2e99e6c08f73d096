"""Show, check and build what a PVH domain gets at boot: start info, memory layout, ACPI tables.

startinfo  read hvm_start_info from an image of memory, and check it
layout     the hardware domain's address space: what is mapped where, and why
tables     build the ACPI tables of a hardware domain or a guest
check      check ACPI tables against the PVH contract
"""

import argparse

from pcipt.cli.parts import add_parts, run_part

PARTS = ("startinfo", "layout", "tables", "check")
EXAMPLES = (
    ("pcipt pvh layout", "this machine's address space as a PVH dom0 would have it"),
    ("pcipt pvh check", "this machine's ACPI tables against the contract"),
    ("pcipt help pvh tables", "more about one part"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_parts(parser, "pvh", PARTS)


def run(args: argparse.Namespace) -> int:
    return run_part(args)
