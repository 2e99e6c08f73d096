"""Rules of passthrough about neighbours: what goes along with a function, and why.

`groups` computes the sets of functions that can only go together; the rules here say it about one function.
Each rule yields a WARN reason only if a neighbour would stay in dom0. A function stays in dom0 if it is not
in `Evidence.together`.
Source: see `groups_edges`.
"""

from collections.abc import Iterable
from functools import partial

from pcipt.firmware.passthrough.groups import EVERY_RULE, Companion, Groups, companions, doubtful
from pcipt.firmware.passthrough.groups_acs import judge_acs
from pcipt.firmware.passthrough.groups_edges import Why, own_resets
from pcipt.firmware.passthrough.groups_losses import losses, named
from pcipt.firmware.passthrough.index import belongs_to_machine, device_of
from pcipt.firmware.passthrough.verdict import Evidence, Reason, Rule, Said, Unknown, Verdict, names
from pcipt.pci import Function, Sbdf

_SAME_ID = frozenset({Why.REQUESTER, Why.ALIAS, Why.PHANTOM, Why.VMD})
_AROUND = frozenset({Why.PORT, Why.FUNCTIONS, Why.SWITCH, Why.LINUX})
_TOGETHER = "pass them to the same guest"
_SHOWN = 4


def requester_ids(groups: Groups, function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if the function shares its requester id with functions that would stay in dom0.

    The IOMMU cannot distinguish such functions. They are behind a bridge to conventional PCI or in the
    segment of a VMD controller, or one of them uses the requester id of another one.
    """
    staying = companions(function.sbdf, evidence, groups, _SAME_ID)
    if staying:
        text = f"its requester id is that of {names(each.sbdf for each in staying)} too: {_last(staying)}"
        yield Reason(
            "requester-id-shared", Verdict.WARN, text, f"{_TOGETHER}, or use a PCI Express slot of its own"
        )


def split_device(_groups: Groups, function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if other functions of the same device would stay in dom0.

    Cause: a reset of one function may reset all functions of the device. Functions that cannot be given to a
    guest, such as bridges (`belongs_to_machine`), do not count. Yield nothing for a virtual function, and for
    a function that is known to be reset alone and to separate itself by ACS.
    """
    device = evidence.index.devices.get(device_of(function, evidence.machine), ())
    if function.physfn is not None:
        return
    if own_resets(function, evidence) and judge_acs(function, evidence).separates:
        return
    staying = _assignable(evidence, evidence.remains(function, device))
    if staying:
        text = (
            f"it is one function of a device, and {names(staying)} would stay in dom0: a reset of one "
            "function may reset all"
        )
        star = f"'{str(function.sbdf)[:-1]}*'"  # a shell would look for files
        beyond = [str(each) for each in device if each.device != function.sbdf.device]  # with ARI
        yield Reason(
            "device-split", Verdict.WARN, text, f"pass all of them: `pcipt check {' '.join([star, *beyond])}`"
        )


def acs(groups: Groups, function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if the function and functions that stay in dom0 can reach each other around the
    IOMMU.

    If Linux knows the function's IOMMU group, the group decides. Else the ACS capabilities of the ports above
    the function and of the function itself decide.
    """
    alike = {each.sbdf for each in companions(function.sbdf, evidence, groups, _SAME_ID)}
    reached = companions(function.sbdf, evidence, groups, _SAME_ID | _AROUND)
    staying = [each for each in reached if each.sbdf not in alike]
    if not staying:
        return
    far: list[Companion] = []
    near: list[Companion] = []
    for each in staying:
        (near if all(edge.why is Why.FUNCTIONS for edge in each.way) else far).append(each)
    for code, found in (("no-acs", far), ("no-acs-functions", near)):
        if found:
            shown = names(each.sbdf for each in found)
            text = f"it and {shown} can reach each other around the IOMMU: {_reasons(found)}"
            yield Reason(code, Verdict.WARN, text, _apart(function, found, slot=found is far))


def _apart(function: Function, found: Iterable[Companion], *, slot: bool) -> str:
    """Return what helps against functions that `function` can reach. `slot` is True if another slot helps.

    A virtual function cannot go to a guest together with its physical function.
    """
    elsewhere = "use a slot below a port with ACS" if slot else ""
    if function.physfn is not None and function.physfn in {each.sbdf for each in found}:
        return elsewhere
    return f"{_TOGETHER}, or {elsewhere}" if slot else _TOGETHER


def goes_along(groups: Groups, function: Function, evidence: Evidence) -> Said:
    """Yield a reason with the name of each function that goes along and would stay: with its driver, and with
    what dom0 loses with it.

    The reason is OK if all of them only share reserved regions with the function and dom0 uses none of them
    now; else WARN. Yield `Unknown` for each fact by which more functions might go along.
    """
    yield from (Unknown(what) for what in doubtful(function.sbdf, evidence, groups))
    staying = companions(function.sbdf, evidence, groups, EVERY_RULE)
    if not staying:
        return
    shown = "; ".join(named(each.sbdf, evidence) for each in staying[:_SHOWN])
    more = f"; and {len(staying) - _SHOWN} more" if len(staying) > _SHOWN else ""
    uses = [use for each in staying for use in evidence.uses.get(each.sbdf, ())]
    regions = all(edge.why is Why.REGION for each in staying for edge in each.way)
    consoles = evidence.consoles or frozenset()
    free = (
        regions and not any(use.active for use in uses) and not any(each.sbdf in consoles for each in staying)
    )
    yield Reason(
        "goes-along",
        Verdict.OK if free else Verdict.WARN,
        f"with it go {shown}{more}",
        f"`pcipt groups {function.sbdf}` shows why",
    )


def other_guests(groups: Groups, function: Function, evidence: Evidence) -> Said:
    """Yield a reason if a function that goes along belongs to a guest: REFUSE if the IOMMU cannot distinguish
    the two, else WARN.
    """
    reached = companions(function.sbdf, evidence, groups) if evidence.owners else ()
    held = [each for each in reached if evidence.owners.get(each.sbdf, "").startswith("guest")]
    if held:
        alike = {each.sbdf for each in companions(function.sbdf, evidence, groups, _SAME_ID)}
        verdict = Verdict.REFUSE if any(each.sbdf in alike for each in held) else Verdict.WARN
        owners = ", ".join(f"{each.sbdf} to {evidence.owners[each.sbdf]}" for each in held[:_SHOWN])
        more = f" and {len(held) - _SHOWN} more" if len(held) > _SHOWN else ""
        text = (
            f"other functions of its group belong to guests ({owners}{more}): two guests would share one "
            "group"
        )
        cure = (
            "give it to the same guest, or detach the others from their guest first: `xl pci-detach DOMAIN "
            "SBDF`"
        )
        yield Reason("group-with-guest", verdict, text, cure)


def _last(staying: Iterable[Companion]) -> str:
    """Return the reason of the last edge on the way to the nearest companion."""
    return next(iter(staying)).way[-1].text


def _reasons(staying: Iterable[Companion]) -> str:
    """Return the reasons of the edges on the way to the nearest companion, each once."""
    return "; ".join(dict.fromkeys(edge.text for edge in next(iter(staying)).way))


def _assignable(evidence: Evidence, sbdfs: Iterable[Sbdf]) -> list[Sbdf]:
    """Return those of the functions that can be given to a guest, in their order.

    See `belongs_to_machine` for those that cannot.
    """
    return [sbdf for sbdf in sbdfs if not belongs_to_machine(evidence.machine.functions[sbdf])]


OF_GROUPS = (requester_ids, split_device, acs, goes_along, other_guests)


def rules_of(groups: Groups) -> tuple[Rule, ...]:
    """Return the rules about neighbours. `groups` must be those of the evidence that the rules get."""
    return (*(partial(rule, groups) for rule in OF_GROUPS), losses)
