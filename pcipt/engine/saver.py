"""Writes the engine's files to the store. A file that cannot be written is a finding until it is written.

A synced write costs some milliseconds on many disks. What vPCI was seen to do is therefore held back until
the intents of the next actions are written: both are on disk before the first of these actions is performed.
"""

from collections.abc import Callable, Iterable, Sequence

from pcipt.engine.interfaces import Store
from pcipt.engine.memory import Memory
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Finding
from pcipt.remap.ledger import Ledger
from pcipt.remap.steps import AnyStep


class Saver:
    """Writes ledger, mappings and boot snapshot; it never raises, `findings` tells what failed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trouble: dict[str, Finding] = {}
        self._held: list[AnyStep] = []

    @property
    def findings(self) -> Iterable[Finding]:
        """Return one finding for each file whose last write failed."""
        return self._trouble.values()

    def save_boot(self, boot: BootSnapshot) -> bool:
        """Write the boot snapshot. Return True if it is on disk, False if writing failed."""
        return self._save("boot-snapshot", lambda: self._store.save_snapshot(boot))

    def append(self, steps: Sequence[AnyStep]) -> None:
        """Append the steps that are held, then `steps`, to the ledger's file.

        Raises: OSError if they are not on disk; the steps that are held are then still held.
        """
        self._store.append([*self._held, *steps])
        self._held.clear()

    def hold(self, steps: Iterable[AnyStep]) -> None:
        """Hold steps that the ledger in memory has already: the next write of the ledger writes them too."""
        self._held += steps

    def note(self, steps: Iterable[AnyStep]) -> bool:
        """Append the steps that are held, then `steps`. Return True if all are on disk or there are none."""
        self.hold(steps)
        return self.write_held()

    def write_held(self) -> bool:
        """Append the steps that are held. Return True if they are on disk or there are none."""
        return not self._held or self._save("ledger", lambda: self.append(()))

    @property
    def is_due(self) -> bool:
        """Return True if the ledger's file of steps has become long, and the last `save` did not fail."""
        return self._store.is_long and not self._trouble

    def save(self, memory: Memory) -> bool:
        """Write the ledger as a whole and the pages that vPCI mapped.

        If the last write of the boot snapshot failed, it is written again. Return True if no write failed.
        """
        boot, ledger = memory.boot, memory.ledger
        saved = [
            self._save("mappings", lambda: self._store.save_mappings(ledger)),
            self._save("ledger", lambda: self._save_ledger(ledger)),
            boot is None or "boot-snapshot" not in self._trouble or self.save_boot(boot),
        ]
        return all(saved)

    def _save_ledger(self, ledger: Ledger) -> None:
        """Write the whole ledger. It includes the steps that are held, so they are held no more."""
        self._store.save(ledger)
        self._held.clear()

    def close(self) -> None:
        """Close the files of the store."""
        self._store.close()

    def _save(self, name: str, save: Callable[[], None]) -> bool:
        """Write one file; replace its finding. Return True if it was written."""
        self._trouble.pop(name, None)
        try:
            save()
        except OSError as error:
            why = (
                f"the {name} cannot be saved ({error.strerror or error}): free space on the disk, then "
                "pcipt resync"
            )
            self._trouble[name] = Finding(f"{name}-unsaved", why)
            return False
        return True
