"""Compare the lines of other tools that name functions by address with the machine and the policy.

Such a line has the addresses of the day on which it was written: after a change of hardware it may name
nothing, or another device.
Sources: what a tool does with a wrong line: linux drivers/xen/xen-pciback/pci_stub.c (pcistub_init returns
         EINVAL); Qubes OS, dracut/modules.d/90qubes-pciback/qubes-pciback.sh (die);
         tools/xl/xl_parse.c and tools/libs/light/libxl_pci.c (libxl__device_pci_add).
"""

from collections.abc import Iterable, Mapping, Sequence

from pcipt import values as attrs
from pcipt.errors import printable
from pcipt.pci.address import Sbdf
from pcipt.pci.identity import Identity
from pcipt.pci.notation.hidden import Named
from pcipt.pci.policy.resolve import Resolution, State, brief, kept_for, moved_text
from pcipt.pci.policy.snippets import For, can_name, item_of, line_of

MALFORMED, ABSENT, STALE = "line-malformed", "line-absent", "line-stale"
CODES = (MALFORMED, ABSENT, STALE)
_ANY_GUEST = ""
_NO_PCIBACK = (
    "xen-pciback refuses the whole option and does not start. So no device is hidden, and xl can give no "
    "device to a guest"
)

_REFUSED = {
    For.KERNEL: _NO_PCIBACK,
    For.MODPROBE: _NO_PCIBACK,
    For.QUBES: "the hook of Qubes OS stops the boot",
    For.XL: "xl refuses the whole file and does not start the guest",
}
_NOTHING = {
    For.KERNEL: "the address hides nothing",
    For.MODPROBE: "the address hides nothing",
    For.QUBES: "the hook of Qubes OS stops the boot",
    For.XL: "xl does not start the guest",
}


@attrs.frozen
class Written:
    """One line of another tool. `tool` is XL, KERNEL, MODPROBE or QUBES.

    `where` says where it stands, in words. `items` are the addresses in it. `guest` is the guest of a file of
    xl. `fault` says why nothing can be read of it, or is empty. `effect` says what the tool does then; if it
    is empty, the tool refuses the line.
    """

    tool: For
    where: str
    items: tuple[Named, ...] = ()
    guest: str = ""
    fault: str = ""
    effect: str = ""


@attrs.frozen
class WrongLine:
    """One thing that is wrong with a line: a code of `CODES`, where, in words with the cure, the right line.

    `line` is empty if the right line names nothing, or could not be made.
    """

    code: str
    where: str
    text: str
    line: str = ""


def wrong_lines(
    lines: Iterable[Written], resolutions: Sequence[Resolution], machine: Mapping[Sbdf, Identity]
) -> tuple[WrongLine, ...]:
    """Return what is wrong with the lines, in their order. `machine` has the identity of each function.

    An item is wrong if it is malformed, if it names no function, or if it names another device than the
    policy means: one that is in the place of an entry and not the expected one; one that is kept for another
    guest; one that nobody is to keep, where a device that the policy keeps is missing in the line.
    """
    return tuple(wrong for each in lines for wrong in _wrong(each, resolutions, machine))


def _wrong(
    line: Written, resolutions: Sequence[Resolution], machine: Mapping[Sbdf, Identity]
) -> list[WrongLine]:
    """Return what is wrong with one line."""
    if line.fault:
        return [WrongLine(MALFORMED, line.where, f"{line.fault}: {line.effect or _REFUSED[line.tool]}")]
    ours = [each for each in resolutions if _concerns(line, each)]
    named = {sbdf for item in line.items for sbdf in item.functions(machine)}
    missing = [
        each
        for each in ours
        if each.kept is None or (each.kept not in named and can_name(line.tool, each.kept))
    ]
    if line.tool is For.XL:
        missing = [each for each in missing if each.entry.guest]
    found = [(item, _fault(line, item, ours, missing, resolutions, machine)) for item in line.items]
    wrong = [(item, fault) for item, fault in found if fault is not None]
    good = [item for item, fault in found if fault is None]
    items = _right(line.tool, good, [item for item, _ in wrong], missing)
    whole = line_of(line.tool, items) if items else ""
    cure = f"the right line is {whole}" if whole else "delete the address from the line"
    return [
        WrongLine(code, line.where, f"{line.where} names {printable(item.text)}: {text}; {cure}", whole)
        for item, (code, text) in wrong
    ]


def _concerns(line: Written, resolution: Resolution) -> bool:
    """Return True if the line may name the function of an entry: in a file of xl one for its guest."""
    return line.tool is not For.XL or resolution.entry.guest in (_ANY_GUEST, line.guest)


def _fault(
    line: Written,
    item: Named,
    ours: Sequence[Resolution],
    missing: Sequence[Resolution],
    every: Sequence[Resolution],
    machine: Mapping[Sbdf, Identity],
) -> tuple[str, str] | None:
    """Return the code and the words of what is wrong with one item; None if nothing is.

    `ours` are the entries that the line is about, `missing` those of them that it should name and does not.
    """
    if item.slot is None:
        return MALFORMED, f"this is no valid address, and {_REFUSED[line.tool]}"
    functions = item.functions(machine)
    if not functions:
        return ABSENT, f"no function is at this address, and {_NOTHING[line.tool]}"
    kept = {each.kept for each in ours}
    if any(sbdf in kept for sbdf in functions):
        return None
    for each in every:
        if each.sbdf in functions and each.state is State.MISMATCH:
            expected, found = brief(each.entry.expected), brief(each.found or Identity())
            text = f"the policy expects {expected} at this address, but {found} is there{moved_text(each)}"
            return STALE, text
        if each.kept in functions and each not in ours:
            return STALE, f"the policy keeps this function for {kept_for(each.entry)}"
    if missing:
        what = brief(machine[functions[0]])
        first = missing[0]
        at = f"at {first.kept}" if first.kept is not None else f"expected at {first.entry.path}"
        text = (
            f"this is {what}, which the policy does not keep; the line does not name the device that the "
            "policy keeps"
        )
        return STALE, f"{text} ({brief(first.entry.expected)}, {at})"
    return None


def _right(
    tool: For, good: Sequence[Named], wrong: Sequence[Named], missing: Sequence[Resolution]
) -> list[str]:
    """Return the items of the right line: the items `good`, and the functions of `missing` that are there.

    If one item takes the place of one other, it keeps the options of that.
    """
    present = [each.kept for each in missing if each.kept is not None]
    options = wrong[0].options if len(wrong) == len(present) == 1 else ""
    return [*(item.text for item in good), *(item_of(tool, sbdf, options) for sbdf in present)]
