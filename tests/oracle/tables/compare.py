"""Give the same machines to Xen's own parsers of DMAR and IVRS and to `judge`, and compare all answers.

The machines are those of the rules' tests, then random ones, then random ones with a second segment.
"""

import json
import subprocess

from pcipt.firmware.acceptance.answers import Answer
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acceptance.rules import Ending
from pcipt.firmware.acpi.ivrs import parse_ivrs
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Sbdf, parse_sbdf
from pcipt.pci.requester import Requester
from pcipt.xen.releases import parse_version
from tests.firmware.acceptance.cases import CASES
from tests.oracle.tables.random_tables import above_0_of, given_of

BATCH, SHOWN = 200, 3
PATIENCE = 300  # seconds of the processor for a reading that may only be long: Xen looks at page after page
NOT_VIRTUAL = 0x10000
NOT_READ = {"fadt-no-msi"}  # Xen's drivers look at the FADT, its parsers do not
#  asked about beside the functions that are there: ids at the borders of what units serve
IDS = (0x00, 0x08, 0x11, 0x12, 0x17, 0x20, 0x21, 0xA0, 0xA7, 0xA8, 0xE7, 0x101, 0x1FF, 0x205, 0x2FF)
ALSO = (
    *(Sbdf(0, routing >> 8, routing >> 3 & 0x1F, routing & 7) for routing in IDS),
    *(Sbdf(1, 0xFF, device, 0) for device in (0, 1)),  # where bridges lead that Xen cannot read
)
VIRTUAL = ((Sbdf(0, 1, 0x10, 0), Sbdf(0, 0, 0x19, 0)), (Sbdf(0, 2, 0x10, 1), Sbdf(0, 0, 2, 0)))
ENDINGS = {"hang": Ending.HANG, "panic": Ending.PANIC, "": Ending.REFUSED}


def number_of(sbdf):
    return sbdf.segment << 16 | sbdf.bus << 8 | sbdf.devfn


def asked_of(given):
    """Give (function, its physical function or None) of all about which both sides are asked."""
    there = {parse_sbdf(name) for name in given.functions} | set(ALSO)
    return [*((sbdf, None) for sbdf in sorted(there)), *VIRTUAL]


def lines_of(given, bridges):
    """Give the machine as the program reads it. Xen keeps reserved memory only of functions that it knows."""
    yield f"table {given.table.hex()}"
    yield from (f"ram {each.range.start:x} {each.range.size:x} {each.kind:x}" for each in given.memory)
    yield from (f"apic {apic:x}" for apic in given.io_apics or ())
    if given.table[:4] == b"IVRS":
        for unit in parse_ivrs(parse_table(given.table)).units:
            yield f"unit {unit.segment << 16 | unit.device:x} {unit.capability:x}"
    for name in given.functions:
        secondary, subordinate = bridges.get(name, (0, 0))
        yield f"function {number_of(parse_sbdf(name)):x} 20000 {secondary:x} {subordinate:x}"
    for sbdf, physfn in asked_of(given):
        yield f"ask {number_of(sbdf):x} {NOT_VIRTUAL if physfn is None else number_of(physfn):x}"
    yield "go"


def ask(program, machines, seconds=2):
    """Yield what Xen says of each machine, in their order. Xen hangs if it needs more seconds than these."""
    for start in range(0, len(machines), BATCH):
        text = "\n".join(line for machine in machines[start : start + BATCH] for line in lines_of(*machine))
        done = subprocess.run(
            [program, str(seconds)], input=text + "\n", capture_output=True, text=True, check=True
        )
        yield from map(json.loads, done.stdout.splitlines())


def difference(given, bridges, release, xen):
    """Give in words where the two sides differ for one machine; None if they agree."""
    there = frozenset(map(parse_sbdf, given.functions))
    boot = BootSnapshot("", there, {parse_sbdf(name): buses for name, buses in bridges.items()})
    judged = judge(given.tables, given.memory, parse_version(release), boot)
    refused, end = bool(xen["result"] or xen["died"]), judged.end
    if end is not None and end.rule.name in NOT_READ:
        return None
    if judged.iommu is Answer.UNKNOWN or refused != (end is not None):
        said = [each.text for each in judged.said]
        return (
            f"verdict: Xen {xen['result']} {xen['died']}; judged {judged.iommu.value} {said} {judged.unknown}"
        )
    if end is not None:
        ending = ENDINGS[xen["died"]]
        return None if end.rule.ending is ending else f"end: Xen {ending}; judged {end.text}"
    for (sbdf, physfn), answer in zip(asked_of(given), xen["answers"], strict=True):
        found = sorted([int(each.start), each.count] for each in judged.state.regions_of(sbdf))
        expected = sorted(pair for pair in answer["reserved"] if pair[1] > 0)
        if found != expected and (sbdf in there or given.table[:4] == b"DMAR"):
            return f"regions of {sbdf}: Xen {expected}; judged {found}"
        unit = _unit(judged.state, given.table, Requester(sbdf, physfn))
        if answer["unit"] not in (unit, -2):  # an IOMMU itself has none
            return f"unit of {sbdf}: Xen {answer['unit']}; judged {unit}"
    return None


def _unit(state, table, requester):
    """Give the unit as the program does: its address for VT-d, its number for AMD-Vi, -1 for none."""
    if table[:4] == b"DMAR":
        unit = state.unit_of(requester)
        found = unit.base if unit is not None else -1
        return found - (1 << 64) if found >> 63 == 1 else found
    unit = state.unit_of(requester.sbdf)
    return -1 if unit is None else [each is unit for each in state.units].index(True)


def compare(program, release, count, seed):
    """Compare on the rules' machines and on `count` random ones; give (machines, differences) in numbers."""
    named = [(f"{name} {word}", (given, {})) for name, pair in CASES.items()
             for word, given in zip(("holds", "holds not"), pair, strict=True)]  # fmt: skip
    named += [(f"seed {each}", given_of(each)) for each in range(seed, seed + count)]
    named += [(f"segment 1, seed {each}", above_0_of(each)) for each in range(seed, seed + count // 4)]
    found = 0
    for (name, machine), xen in zip(named, ask(program, [machine for _, machine in named]), strict=True):
        what = difference(*machine, release, xen)
        if what is not None and xen["died"] == "hang":
            what = difference(*machine, release, next(ask(program, [machine], PATIENCE)))
        if what is not None:
            found += 1
            if found <= SHOWN:
                print(f"--- tables, {name}: {what}")
    return len(named), found
