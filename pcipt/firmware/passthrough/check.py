"""Check functions for passthrough by all rules, and write the configuration lines to paste.

The lines name only functions that exist and that no rule refuses.
Source: xl-pci-configuration(5); linux drivers/xen/xen-pciback/pci_stub.c (hide=).
"""

from collections.abc import Iterable, Sequence

from pcipt import values as attrs
from pcipt.firmware.passthrough import boot_options as boot_rules
from pcipt.firmware.passthrough import configured as configured_rules
from pcipt.firmware.passthrough import function as function_rules
from pcipt.firmware.passthrough import memory as memory_rules
from pcipt.firmware.passthrough import neighbours as neighbour_rules
from pcipt.firmware.passthrough import trouble as trouble_rules
from pcipt.firmware.passthrough.groups import groups_of
from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.firmware.passthrough.verdict import GRAVEST_FIRST, RELAXED, Evidence, Report, Verdict, judge
from pcipt.pci import Sbdf

OF_MACHINE = (function_rules.platform, function_rules.decoder_findings)
RULES = (  # those about neighbours follow
    *function_rules.RULES,
    *boot_rules.RULES,
    *memory_rules.RULES,
    *trouble_rules.RULES,
    *configured_rules.RULES,
)


@attrs.frozen
class Snippets:
    """Configuration lines for the user to paste: for xl, and for xen-pciback's parameter `hide`.

    `options` are further lines for xl.cfg, `xen` options for Xen's command line.
    """

    xl: tuple[str, ...]
    hide: str
    options: tuple[str, ...] = ()
    xen: tuple[str, ...] = ()


def check_functions(sbdfs: Iterable[Sbdf], evidence: Evidence) -> tuple[Report, ...]:
    """Return a report for each of the functions.

    A function that belongs to the machine itself, e.g. a bridge, is checked only by the two rules in
    `OF_MACHINE`.
    Shape:  REFUSE first, then WARN, then OK; sorted by address within each.
    Raises: KeyError if a function is not in the evidence's machine.
    """
    rules = (*RULES, *neighbour_rules.rules_of(groups_of(evidence)))
    functions = (evidence.machine.functions[sbdf] for sbdf in sbdfs)
    reports = [judge(each, evidence, OF_MACHINE if belongs_to_machine(each) else rules) for each in functions]
    return tuple(sorted(reports, key=lambda report: (GRAVEST_FIRST.index(report.verdict), report.sbdf)))


def make_snippets(reports: Sequence[Report], *, together: bool) -> Snippets:
    """Return the configuration lines for the functions whose verdict is not REFUSE, sorted by address.

    If `together` is True, one `xl` line names all of them, for one guest; else there is one `xl` line per
    function. A function whose report has `relaxed` gets rdm_policy=relaxed in its `xl` line. If every verdict
    is REFUSE, or there are no reports, all are empty. `options` and `xen` are those of the reasons, each
    once.
    """
    fit = sorted(
        (report for report in reports if report.verdict is not Verdict.REFUSE), key=lambda report: report.sbdf
    )
    entries = [f'"{xl_name(report.sbdf)}{RELAXED if report.relaxed else ""}"' for report in fit]
    groups = [", ".join(entries)] if together and entries else entries
    return Snippets(
        tuple(f"pci = [ {entry} ]" for entry in groups),
        "".join(f"({report.sbdf})" for report in fit),
        tuple(dict.fromkeys(reason.xl for report in fit for reason in report.reasons if reason.xl)),
        tuple(dict.fromkeys(reason.xen for report in fit for reason in report.reasons if reason.xen)),
    )


def xl_name(sbdf: Sbdf) -> str:
    """Return an address as xl's configuration files have it: without the segment if the segment is 0."""
    text = str(sbdf)
    return text.partition(":")[2] if sbdf.segment == 0 else text
