"""Check functions for passthrough: all rules, the order of the answer, and the lines to paste.

Lines name only functions that exist and that nothing refuses.
Source: xl-pci-configuration(5); linux drivers/xen/xen-pciback/pci_stub.c (hide=).
"""

from collections.abc import Iterable, Sequence

import attrs

from pcipt.firmware.passthrough import function as function_rules
from pcipt.firmware.passthrough import isolation as isolation_rules
from pcipt.firmware.passthrough import memory as memory_rules
from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.firmware.passthrough.verdict import GRAVEST_FIRST, Evidence, Report, Verdict, judge
from pcipt.pci import Sbdf

OF_MACHINE = (function_rules.platform, function_rules.decoder_findings)
RULES = (*function_rules.RULES, *memory_rules.RULES, *isolation_rules.RULES)


@attrs.frozen
class Snippets:
    """Lines for xl's configuration of a guest, and the value of xen-pciback's `hide`."""

    xl: tuple[str, ...]
    hide: str


def check_functions(sbdfs: Iterable[Sbdf], evidence: Evidence) -> tuple[Report, ...]:
    """Judge functions of the machine.

    Shape:  the gravest verdict first, then by address.
    """
    functions = (evidence.machine.functions[sbdf] for sbdf in sbdfs)
    reports = [judge(each, evidence, OF_MACHINE if belongs_to_machine(each) else RULES) for each in functions]
    return tuple(sorted(reports, key=lambda report: (GRAVEST_FIRST.index(report.verdict), report.sbdf)))


def make_snippets(reports: Sequence[Report], *, together: bool) -> Snippets:
    """Make the lines: one for all that go to one guest `together`, else one for each."""
    fit = sorted(
        (report for report in reports if report.verdict is not Verdict.REFUSE), key=lambda report: report.sbdf
    )
    entries = [f'"{xl_name(report.sbdf)}{",rdm_policy=relaxed" if report.relaxed else ""}"' for report in fit]
    groups = [", ".join(entries)] if together and entries else entries
    return Snippets(
        tuple(f"pci = [ {entry} ]" for entry in groups), "".join(f"({report.sbdf})" for report in fit)
    )


def xl_name(sbdf: Sbdf) -> str:
    """Write an address as xl's configurations have it: the segment only where it is not 0."""
    text = str(sbdf)
    return text.partition(":")[2] if sbdf.segment == 0 else text
