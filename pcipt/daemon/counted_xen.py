"""A hypervisor interface that reports errors of Xen to a callback; calls and results are not changed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from pcipt.errors import HypervisorError
from pcipt.pci import Frames, Sbdf
from pcipt.xen.interface import (
    Abilities,
    Custody,
    DeviceFlags,
    Hypervisor,
    Owner,
    Permissions,
    XenIdentity,
)


class CountedXen:
    """A `Hypervisor` that passes each call to `xen` and returns its result.

    If a call raises HypervisorError, `on_error` is called with the error, and the error is raised again.
    Other errors are raised without a call of `on_error`.
    """

    def __init__(self, xen: Hypervisor, on_error: Callable[[HypervisorError], None]) -> None:
        self._xen = xen
        self._on_error = on_error

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Run the with-block; call `on_error` with a HypervisorError that it raises, then raise that error
        again.
        """
        try:
            yield
        except HypervisorError as error:
            self._on_error(error)
            raise

    @property
    def identity(self) -> XenIdentity:
        return self._xen.identity

    def known(self, functions: Sequence[Sbdf]) -> list[bool]:
        with self._told():
            return self._xen.known(functions)

    def custody(self, function: Sbdf) -> Custody:
        with self._told():
            return self._xen.custody(function)

    def owners(self) -> Mapping[Sbdf, Owner]:
        with self._told():
            return self._xen.owners()

    def add_device(self, function: Sbdf, flags: DeviceFlags) -> None:
        with self._told():
            self._xen.add_device(function, flags)

    def remove_device(self, function: Sbdf) -> None:
        with self._told():
            self._xen.remove_device(function)

    def map_mmio(self, frames: Frames) -> None:
        with self._told():
            self._xen.map_mmio(frames)

    def unmap_mmio(self, frames: Frames) -> None:
        with self._told():
            self._xen.unmap_mmio(frames)

    def reserved_regions(self, function: Sbdf | None = None) -> tuple[Frames, ...]:
        with self._told():
            return self._xen.reserved_regions(function)

    def permissions(self) -> Mapping[int, Permissions]:
        with self._told():
            return self._xen.permissions()

    def console(self) -> str:
        with self._told():
            return self._xen.console()

    def abilities(self) -> Abilities:
        with self._told():
            return self._xen.abilities()

    def command_line(self) -> str:
        with self._told():
            return self._xen.command_line()

    def close(self) -> None:
        self._xen.close()
