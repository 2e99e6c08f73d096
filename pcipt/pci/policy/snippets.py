"""Lines that keep or give the functions of the policy by other tools' own means.

Sources: xl-pci-configuration(5); linux drivers/xen/xen-pciback/pci_stub.c (hide=); Qubes OS 4.3, "How to use
        PCI devices" (qvm-pci, rd.qubes.hide_pci); XCP-ng, "PCI Passthrough" (xen-cmdline, xe).
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.notation.hidden import PCIBACK, QUBES
from pcipt.pci.policy.resolve import Resolution

NO_GUEST = "GUEST"  # stands where the user has to put a name


class For(enum.Enum):
    """Whom the lines are for."""

    XL = "xl"
    KERNEL = "kernel"
    MODPROBE = "modprobe"
    QUBES = "qubes"
    XAPI = "xapi"


@attrs.frozen
class Needs:
    """What functions need in a guest's configuration file for xl, by address.

    `options` stand behind the address (",rdm_policy=relaxed"), `lines` below the line that names it.
    """

    options: Mapping[Sbdf, str] = attrs.field(factory=dict)
    lines: Mapping[Sbdf, tuple[str, ...]] = attrs.field(factory=dict)


def lines_for(tool: For, resolutions: Sequence[Resolution], needs: Needs | None = None) -> list[str]:
    """Return the lines for a tool, about the functions that are present; none if no function is.

    Addresses are those of now: where a tool takes a PCI path (Qubes OS), the path is given. `needs` are those
    for xl.
    """
    if tool is For.XL:
        return _xl([(each, each.kept) for each in resolutions if each.kept is not None], needs or Needs())
    kept = [(each, each.kept) for each in resolutions]
    found = [(each, sbdf) for each, sbdf in kept if sbdf is not None]
    return _WRITERS[tool](found) if found else []


Kept = Sequence[tuple[Resolution, Sbdf]]


def _by_guest(found: Kept) -> dict[str, list[Sbdf]]:
    """Return the functions of each guest, in order; those without a guest have the name `NO_GUEST`."""
    guests: dict[str, list[Sbdf]] = {}
    for each, sbdf in found:
        guests.setdefault(each.entry.guest or NO_GUEST, []).append(sbdf)
    return guests


def line_of(tool: For, items: Iterable[str]) -> str:
    """Return the one line that names `items` for a tool; for xapi there is no such line.

    An item is an address with its segment, and what the tool's own notation has around or behind it.
    """
    return _LINES[tool](list(items))


def item_of(tool: For, sbdf: Sbdf, options: str = "") -> str:
    """Return one item of such a line. `options` follow the address, as xl has them."""
    if tool in (For.KERNEL, For.MODPROBE):
        return f"({sbdf})"
    return str(sbdf).removeprefix("0000:") if tool is For.QUBES else f"{sbdf}{options}"


def can_name(tool: For, sbdf: Sbdf) -> bool:
    """Return True if a line for a tool can name a function: the hook of Qubes OS knows segment 0 only."""
    return tool is not For.QUBES or sbdf.segment == 0


def _line(tool: For, sbdfs: Iterable[Sbdf]) -> str:
    return line_of(tool, (item_of(tool, sbdf) for sbdf in sorted(sbdfs)))


def _xl(found: Kept, needs: Needs) -> list[str]:
    lines = []
    for guest, sbdfs in _by_guest(found).items():
        items = [item_of(For.XL, sbdf, needs.options.get(sbdf, "")) for sbdf in sbdfs]
        more = dict.fromkeys(line for sbdf in sbdfs for line in needs.lines.get(sbdf, ()))
        lines += [f"# {guest}.cfg", line_of(For.XL, items), *more]
    return lines


def _kernel(found: Kept) -> list[str]:
    return [_line(For.KERNEL, (sbdf for _, sbdf in found))]


def _qubes(found: Kept) -> list[str]:
    places = ((each.entry.guest or NO_GUEST, (each.found or each.entry.expected).path) for each, _ in found)
    attached = [f"qvm-pci assign --required {guest} dom0:{path}" for guest, path in places]
    hidden = [sbdf for _, sbdf in found if can_name(For.QUBES, sbdf)]
    others = [sbdf for _, sbdf in found if not can_name(For.QUBES, sbdf)]
    lines = [_line(For.QUBES, hidden)] if hidden else []
    lines += [f"# {QUBES} cannot name {sbdf}: it is in another segment than 0" for sbdf in sorted(others)]
    return [*lines, *attached]


def _xapi(found: Kept) -> list[str]:
    lines = [f'/opt/xensource/libexec/xen-cmdline --set-dom0 "{_kernel(found)[0]}"']
    for guest, sbdfs in _by_guest(found).items():
        listed = ",".join(f"0/{sbdf}" for sbdf in sbdfs)
        chosen = f"$(xe vm-list name-label={guest} --minimal)"
        lines.append(f"xe vm-param-set uuid={chosen} other-config:pci={listed}")
    return lines


_WRITERS = {For.KERNEL: _kernel, For.QUBES: _qubes, For.XAPI: _xapi}
_LINES: Mapping[For, Callable[[list[str]], str]] = {
    For.XL: lambda items: "pci = [ " + ", ".join(f'"{item}"' for item in items) + " ]",
    For.KERNEL: lambda items: f"{PCIBACK}={''.join(items)}",
    For.MODPROBE: lambda items: f"options xen-pciback hide={''.join(items)}",
    For.QUBES: lambda items: f"{QUBES}={','.join(items)}",
}
