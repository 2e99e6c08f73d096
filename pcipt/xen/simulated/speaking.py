"""What a simulated Xen tells about itself: its console, its command line, its abilities."""

from pcipt.xen.interface import Abilities
from pcipt.xen.outcome import Op, check, readable_line
from pcipt.xen.simulated.faults import Call, Faults


class Speaking:
    """The part of `SimulatedXen` that speaks. `line` is its command line; does it use an IOMMU (`iommu`)?"""

    def __init__(self, line: str, *, iommu: bool) -> None:
        self._abilities = Abilities(pv=True, hvm=True, iommu=iommu)
        self.calls: list[Call] = []
        self._faults = Faults()
        self._line = line
        self._printed: list[str] = []
        self._read = 0  # lines that this connection has read

    def prints(self, text: str) -> None:
        """Add a line to the console, with the prefix of Xen."""
        self._printed.append(f"(XEN) {text}\n")

    def console(self) -> str:
        """Return what was printed since the last call of this method.

        Raises: HypervisorError or UnsupportedError if a test ordered a failure of CONSOLE.
        """
        self._require_alive()
        self._ask(Op.CONSOLE)
        text = "".join(self._printed[self._read :])
        self._read = len(self._printed)
        return text

    def reconnect(self) -> None:
        """Begin a new connection, as a service that starts again does: it reads all that the ring holds.

        Source: Xen drivers/char/console.c (read_console_ring: the reader keeps the index).
        """
        self._read = 0

    def command_line(self) -> str:
        """Return the command line of Xen.

        Raises: UnsupportedError if it is `DENIED`; HypervisorError or UnsupportedError if a test ordered a
                failure of COMMAND_LINE.
        """
        self._require_alive()
        self._ask(Op.COMMAND_LINE)
        return readable_line(self._line)

    def abilities(self) -> Abilities:
        """Return what this Xen can do.

        Raises: HypervisorError or UnsupportedError if a test ordered a failure of ABILITIES.
        """
        self._require_alive()
        self._ask(Op.ABILITIES)
        return self._abilities

    def _press_key(self) -> None:
        """Log a debug key and the reading of the console, with an ordered failure if there is one.

        Raises: HypervisorError or UnsupportedError if a failure was ordered.
        """
        self._require_alive()
        for op in (Op.KEY, Op.CONSOLE):
            self._ask(op)

    def _ask(self, op: Op) -> None:
        """Log a call without an argument, with an ordered failure if there is one.

        Raises: HypervisorError or UnsupportedError if a failure was ordered.
        """
        fault = self._faults.take(op)
        result = -fault.errno if fault else 0
        self.calls.append(Call(op, (), result))
        check(op, result)

    def _require_alive(self) -> None:
        """Raise Catastrophe if the host has panicked, StateError if the connection is closed."""
        raise NotImplementedError
