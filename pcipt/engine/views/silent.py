"""Finds functions whose owner in Xen has changed without a message of Linux.

Such a change is possible for a function that is bound to xen-pciback: xl quarantines the function by one
hypercall, and gives it back by another one. Such a change is also possible for a function to which Xen gives
an owner other than dom0 or no owner, for a function that Xen lists and Linux does not have, and for a
function that Xen lists at another address than Linux. Before any other function changes its owner, its driver
must be unbound, and Linux sends a message about this.
Source: Xen tools/libs/light/libxl_pci.c (libxl__device_pci_assignable_add and _remove).
"""

from collections.abc import Iterable

from pcipt.engine.views.views import Views
from pcipt.pci import Sbdf
from pcipt.remap.desired import PCIBACK


def silent_functions(views: Views, among: Iterable[Sbdf] | None = None) -> set[Sbdf]:
    """Return the functions whose owner may change without a message: Linux's addresses, else Xen's.

    If `among` is given, functions that are not in it are left out.
    """
    aliased = {*views.state.renumbered, *views.announced_at()}
    asked = {*views.machine.functions, *views.view.known, *aliased} if among is None else among
    return {sbdf for sbdf in asked if sbdf in aliased or _is_silent(sbdf, views)}


def _is_silent(sbdf: Sbdf, views: Views) -> bool:
    """Return True if the owner of a function may change without a message; consider only this address."""
    function, view = views.machine.functions.get(sbdf), views.view
    if function is None:
        return sbdf in view.known
    return function.driver == PCIBACK or (sbdf in view.known and not view.in_dom0(sbdf))


def ask_for_other_owners(views: Views) -> frozenset[Sbdf] | None:
    """Ask Xen about all `silent_functions`, and whether it lists each function of the machine.

    Return the functions for which the answer differs from `views.view`; None if Xen cannot be asked. The view
    does not change. No function is read, because reading would wake a sleeping function.
    """
    addresses = {sbdf: views.addresses(sbdf) for sbdf in silent_functions(views)}
    owned = {at for others in addresses.values() for at in others}
    other = views.questions.ask_for_other_owners(views.machine.functions, owned, views.given(owned))
    if other is None:
        return None
    return other | {sbdf for sbdf, others in addresses.items() if not others.isdisjoint(other)}
