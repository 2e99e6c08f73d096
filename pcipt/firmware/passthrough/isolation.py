"""Rules of passthrough about neighbours: shared requester ids, functions of one device, missing ACS.

Each rule yields a WARN reason only if a neighbour would stay in dom0. A function stays in dom0 if it is not
in `Evidence.together`.
Source: XSA-467 (requester ids behind conventional bridges); PCI Express Base 6.0 §6.12 (ACS); linux
        drivers/pci/pci.c, pci_acs_enabled: which ports need it, and that one function alone needs none.
"""

from collections.abc import Iterable, Iterator

from pcipt.firmware.passthrough.index import belongs_to_machine, device_of
from pcipt.firmware.passthrough.verdict import Evidence, Reason, Rule, Said, Unknown, Verdict, names
from pcipt.pci import Function, Sbdf
from pcipt.pci.function import has_capability

_ACS = 0x000D
_PORTS = (0x4, 0x6)  # root and downstream ports: without ACS they forward requests to a neighbour
_TOGETHER = "pass them to the same guest"


def requester_ids(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if the function shares its requester id with functions that would stay in dom0.

    All functions behind a bridge to conventional PCI have one requester id, so the IOMMU cannot distinguish
    them. Yield `Unknown` too if the capabilities of a bridge above the function were not read.
    """
    unknown = [bridge for bridge in evidence.above(function) if not evidence.knows_capabilities(bridge.sbdf)]
    if unknown:
        yield Unknown("requester ids behind bridges")
    top = evidence.index.groups.get(function.sbdf)
    if top is None:
        return
    staying = evidence.remains(function, evidence.index.members[top])
    if staying:
        text = (
            f"behind the bridge {top} to conventional PCI its requester id is that of {names(staying)} too: "
            "the IOMMU cannot tell them apart (XSA-467)"
        )
        yield Reason("requester-id-shared", Verdict.WARN, text, f"{_TOGETHER}, or use a PCI Express slot")


def split_device(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if other functions of the same device would stay in dom0.

    Cause: a reset of one function may reset all functions of the device. Functions that cannot be given to a
    guest, such as bridges (`belongs_to_machine`), do not count. Yield nothing for a virtual function.
    """
    device = evidence.index.devices.get(device_of(function, evidence.machine), ())
    if function.physfn is not None:
        return
    staying = _assignable(evidence, evidence.remains(function, device))
    if staying:
        text = f"it is one function of a device, {names(staying)} would stay: a reset of one may hit all"
        star = f"{str(function.sbdf)[:-1]}*"
        beyond = [str(each) for each in device if each.device != function.sbdf.device]  # with ARI
        yield Reason(
            "device-split", Verdict.WARN, text, f"pass all of them: pcipt check {' '.join([star, *beyond])}"
        )


def acs(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if no ACS separates the function from functions that stay in dom0.

    Without ACS the function and these functions can reach each other around the IOMMU. If Linux knows the
    function's IOMMU group, the group decides. Else the ACS capabilities of the ports above the function and
    of the function itself decide. Yield `Unknown` if one of these is needed and was not read. Yield nothing
    for a function of conventional PCI that has no group: `requester_ids` judges it.
    """
    group = evidence.facts_of(function.sbdf).iommu_group
    if group is not None:
        yield from _by_group(function, group, evidence)
        return
    if not evidence.knows_capabilities(function.sbdf):
        yield Unknown("ACS")
        return
    if function.express is None:
        return  # on conventional PCI only the rule `requester_ids` applies
    reached: dict[Sbdf, list[Sbdf]] = {}
    for port in evidence.above(function):
        if port.express is None or port.express.port_type not in _PORTS:
            continue
        peers = evidence.remains(function, _beside(port, function, evidence))
        if peers and not evidence.knows_extended(port.sbdf):
            yield Unknown("ACS")
        elif peers and not has_capability(port, _ACS, extended=True):
            reached[port.sbdf] = peers
    if reached:
        peers = list(dict.fromkeys(sbdf for found in reached.values() for sbdf in found))
        text = f"{names(reached)} above it has no ACS: it and {names(peers)} can reach each other"
        cure = f"{_TOGETHER}, or use a slot below a port with ACS"
        yield Reason("no-acs", Verdict.WARN, f"{text} around the IOMMU", cure)
    yield from _own_acs(function, evidence)


def _beside(port: Function, function: Function, evidence: Evidence) -> Iterator[Sbdf]:
    """Yield the functions behind `port` and behind the ports next to it.

    The ports next to `port` are those of the same switch or, on a root bus, of the same device. The functions
    of the device to which `function` belongs are left out.
    """
    machine, above = evidence.machine, port.parent
    own = device_of(function, machine)
    ports = (above,) if above is not None else evidence.index.devices.get(device_of(port, machine), ())
    for each in ports:
        for sbdf in evidence.index.below.get(each, ()):
            if device_of(machine.functions[sbdf], machine) != own:
                yield sbdf


def _own_acs(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if the function has no ACS and functions of the same device would stay in dom0.

    Functions that cannot be given to a guest, such as bridges (`belongs_to_machine`), do not count. If
    functions would stay and this function's extended config space was not read, yield `Unknown` in place of
    the reason. Yield nothing for a virtual function or a function on a root bus.
    """
    device = evidence.index.devices.get(device_of(function, evidence.machine), ())
    staying = _assignable(evidence, evidence.remains(function, device))
    if function.physfn is not None or not staying or function.parent is None:
        return
    if not evidence.knows_extended(function.sbdf):
        yield Unknown("ACS")
    elif not has_capability(function, _ACS, extended=True):
        text = f"it has no ACS of its own: it and {names(staying)} can reach each other around the IOMMU"
        yield Reason("no-acs-functions", Verdict.WARN, text, _TOGETHER)


def _by_group(function: Function, group: int, evidence: Evidence) -> Iterator[Reason]:
    """Yield a WARN reason if functions of the IOMMU group would stay in dom0.

    Functions that cannot be given to a guest, such as bridges (`belongs_to_machine`), do not count.
    """
    members = [
        sbdf
        for sbdf, facts in evidence.facts.items()
        if facts.iommu_group == group and sbdf in evidence.machine.functions
    ]
    staying = _assignable(evidence, evidence.remains(function, members))
    if staying:
        text = (
            f"Linux has it in IOMMU group {group} with {names(staying)}: no ACS keeps these from each other"
        )
        yield Reason("no-acs", Verdict.WARN, text, _TOGETHER)


def _assignable(evidence: Evidence, sbdfs: Iterable[Sbdf]) -> list[Sbdf]:
    """Return those of the functions that can be given to a guest, in their order.

    See `belongs_to_machine` for those that cannot.
    """
    return [sbdf for sbdf in sbdfs if not belongs_to_machine(evidence.machine.functions[sbdf])]


RULES: tuple[Rule, ...] = (requester_ids, split_device, acs)
