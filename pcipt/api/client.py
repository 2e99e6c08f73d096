"""Ask the service over its control socket. The answers are those of `pcipt COMMAND --json`."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager

from pcipt.cli.machine.client import ask, regions_held, stream
from pcipt.daemon.control.protocol import SOCKET_PATH
from pcipt.hints import Any

Answer = dict[str, Any]


class Client:
    """A client of the service at its control socket. Each method opens a connection, asks, and closes it.

    An answer is the object that docs/json.md describes and docs/json-schema.json checks; it has "version": 1.
    New members may be added, and no member is renamed: ignore members that you do not know. A function is
    named by its address in any notation that `pcipt` takes, or by its PCI path.

    >>> client = Client()  # doctest: +SKIP
    >>> client.status()["health"]
    'degraded'

    Each method raises NotRunningError if the service does not run or does not answer within 30 seconds;
    NotPermittedError if the caller is neither root nor in the group pcipt, or if only root may ask;
    NoSuchDeviceError if the machine does not have the function; InputError with the service's reason for
    everything else.
    """

    def __init__(self, path: str | os.PathLike[str] = SOCKET_PATH) -> None:
        self._path = os.fspath(path)

    def status(self) -> Answer:
        """Return what `pcipt status --json` prints: health, counts, findings, the last actions."""
        return self._ask("Status")

    def mappings(self) -> Answer:
        """Return what is mapped 1:1 for each BAR, and by whom.

        >>> [each["start"] for each in client.mappings()["mappings"] if each["by"] == "us"]
        ['0xfe800000', '0x383fe0000000']
        """
        return self._ask("Mappings")

    def explain(self, function: str, *, as_pvh: bool = False) -> Answer:
        """Return what is mapped for one function and what should be; `as_pvh`: what a PVH dom0 would need."""
        return self._ask("Explain", function=function, **({"as": "pvh"} if as_pvh else {}))

    def history(self, function: str) -> Answer:
        """Return what happened to one function, the oldest event first."""
        return self._ask("History", function=function)

    def rmrr(self) -> Answer:
        """Return the reserved regions, their devices and owners, and whether dom0 has the regions mapped."""
        return self._ask("Rmrr")

    def metrics(self) -> str:
        """Return the counters as OpenMetrics text."""
        return str(self._ask("Metrics")["text"])

    def check(self) -> Answer:
        """Return whether the parts of the service answer: "problems" is empty if they do."""
        return self._ask("Check")

    def monitor(self, slot: str | None = None) -> Iterator[Answer]:
        """Yield everything that happens, as it happens; with `slot` only for the functions that it names.

        `slot` is a filter as of `pcipt list -s`. There is no time limit between two messages. The iterator
        ends with NotRunningError when the service stops.

        >>> for event in client.monitor():
        ...     print(event["kind"])
        ...     break
        start
        """
        return stream(self._path, "Monitor", {} if slot is None else {"slot": slot})

    def guests(self) -> Answer:
        """Return findings about what guests may reach of functions that they have or had. For root only."""
        return self._ask("Guests")

    def release(self, function: str) -> Answer:
        """Make the service look who has a function now, and withdraw regions that no device in dom0 needs.

        This is one step of `pcipt release`, which also takes the function out of dom0. For root only.
        """
        return self._ask("Release", function=function)

    def reclaim(self, function: str) -> AbstractContextManager[Answer]:
        """Put a function's reserved regions back, and keep them in dom0 during the with-block.

        This is one step of `pcipt reclaim`. Give the function back to dom0 within the with-block, by `xl
        pci-assignable-remove`: its regions must return before the function returns. Afterwards the service
        withdraws the regions again if no device of dom0 needs them. InputError if a region cannot be put
        back. For root only.

        >>> with client.reclaim("03:00.0"):  # doctest: +SKIP
        ...     subprocess.run(["xl", "pci-assignable-remove", "-r", "03:00.0"], check=True)
        """
        return regions_held(self._path, function)

    def admit(self, function: str, *, admitted: bool = True) -> Answer:
        """Let dom0 have a function below a policed port from now on; with `admitted` False, not any more.

        This is one step of `pcipt admit`, which also takes the function out of quarantine. For root only.
        """
        return self._ask("Admit", function=function, admitted=admitted)

    def resync(self, *, dry_run: bool = False) -> Answer:
        """Make the service compare hardware, Linux and Xen, and repair what the guards allow. For root only.

        With `dry_run` nothing is changed, and the answer says what would be done.
        """
        return self._ask("Resync", dry_run=dry_run)

    def _ask(self, method: str, **parameters: object) -> Answer:
        return ask(self._path, method, parameters)
