"""Keeps ledger, boot snapshot and what vPCI mapped in the state directory, each for the boot it was made in.

ledger, ledger.steps    what pcipt did and was about to do: synced before the first hypercall of an action;
                        the steps also have what vPCI was seen to map since
mappings                what vPCI was seen to map, the functions of dom0, and how far the kernel's log was
                        followed: written some seconds after an action
boot                    functions and bridges when this boot was first seen

A service that cannot write them leaves a mark elsewhere (`UnsavedMark`).
"""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pcipt.daemon.document import Document
from pcipt.daemon.folder import Folder
from pcipt.errors import AddressError, MalformedError, PciptError
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Finding, parse_sbdf
from pcipt.remap.desired import By
from pcipt.remap.kinds.ports import Ports, ports_from_json, ports_to_json
from pcipt.remap.ledger import Ledger
from pcipt.remap.ledger_json import ledger_from_json, ledger_to_json
from pcipt.remap.mapped_pages import mapped_from_json, mapped_to_json
from pcipt.remap.steps import AnyStep, step_from_json, step_to_json
from pcipt.remap.vpci.roster import Roster, roster_from_json, roster_to_json
from pcipt.remap.vpci.sizes import Sizes

STATE_DIRECTORY = "/var/lib/pcipt"


LATE = Finding(
    "boot-snapshot-late",
    "the record of the machine at boot was lost, and pcipt made a new record later. A function that came "
    "between the boot and the new record may have no IOMMU unit. So pcipt refuses each action that only the "
    "lost record could prove safe; a reboot ends this",
)
_MARK = "unsaved"
PLACES = ("given_up", "faulty", "severed", "complaints")  # of the ledger: sets of places, or of texts


class UnsavedMark:
    """A mark for the next service: files in the state directory do not have all that this service knows.

    A service that cannot write (the disk is full, read-only or broken) may end before it can. The next one
    must not call itself healthy then. So the mark is in another `directory`: /run/pcipt, a tmpfs that is
    empty at each boot and that systemd keeps (RuntimeDirectoryPreserve=yes). `clock` returns the time (UTC,
    RFC 3339). Errors of the directory are ignored: then there is no mark.
    """

    def __init__(self, directory: str, clock: Callable[[], str]) -> None:
        self._folder = Folder(directory)
        self._document = Document(self._folder, _MARK, "mark")
        self._clock = clock
        self._behind: set[str] = set()  # files that do not have the newest content
        self._boot_id = ""

    def read(self, boot_id: str) -> str | None:
        """Return since when an earlier service of this boot could not write; None if it could.

        The mark stays until `mappings`, the file that tells of it, was written.
        """
        self._boot_id = boot_id
        with contextlib.suppress(OSError):
            content, _ = self._document.load()
            if isinstance(content, dict) and content.get("boot_id") == boot_id:
                self._behind.add("mappings")
                return str(content.get("since"))
        return None

    @contextlib.contextmanager
    def watching(self, name: str) -> Iterator[None]:
        """Keep the mark if the block raises OSError; delete it after the last file was written again."""
        try:
            yield
        except OSError:
            if not self._behind:
                with contextlib.suppress(OSError):
                    self._document.save({"boot_id": self._boot_id, "since": self._clock()})
            self._behind.add(name)
            raise
        if name in self._behind:
            self._behind.discard(name)
            if not self._behind:
                with contextlib.suppress(OSError):
                    self._folder.delete(_MARK)

    def close(self) -> None:
        """Close the directory if it is open."""
        self._folder.close()


def beside(socket: str, clock: Callable[[], str]) -> UnsavedMark:
    """Return the mark in the directory of the control socket."""
    return UnsavedMark(os.path.dirname(socket) or ".", clock)


class FileStore:
    """The files in `directory` that keep ledger, mappings and boot snapshot; a `Store` of the engine.

    Only one daemon at a time may use the directory: see `lock.only_one`. `unsaved` is the mark for the next
    service that these files do not have all; without it no mark is kept.
    """

    def __init__(self, directory: str, unsaved: UnsavedMark | None = None) -> None:
        self._mark = unsaved
        self._folder = Folder(directory)
        self._ledger = Document(self._folder, "ledger", "ledger")
        self._boot = Document(self._folder, "boot", "boot-snapshot")
        self._mappings = Document(self._folder, "mappings", "mappings")
        self._unsaved: Ledger | None = None  # steps cannot be appended to what is on disk

    def load(self, boot_id: str) -> tuple[Ledger, BootSnapshot | None, list[Finding]]:
        """Read the files; return the ledger, the boot snapshot, and a finding for each damaged file.

        If the file of the ledger is missing, the ledger has no entries. If the file of the snapshot is
        missing, the snapshot is None. If this boot had one and it was lost, which a ledger of this boot or a
        damaged snapshot shows, the snapshot is late and empty, and a finding says so. A file that is damaged,
        or that was made in another boot than `boot_id`, counts as missing. A damaged file is renamed; of a
        damaged file of steps, the steps before the damaged line are kept. Steps that cannot be applied to the
        ledger are left out, with a finding.

        Raises: OSError if a file exists and cannot be read, or a damaged file cannot be renamed.
        """
        findings: list[Finding] = []
        ledger = self._load_ledger(boot_id, findings)
        if self._mark is not None and (since := self._mark.read(boot_id)) is not None:
            ledger.messages_lost = ledger.messages_lost or since
        content = _taken(self._boot.load(), findings)
        snapshot = _snapshot_from_json(content)
        if content is not None and snapshot is None:
            findings.append(self._boot.rejected("not a snapshot"))
        if snapshot is not None and snapshot.boot_id != boot_id:
            snapshot = None
        if snapshot is None and (self._unsaved is None or any(map(_is_of_boot, findings))):
            snapshot = BootSnapshot(boot_id, frozenset(), {}, late=True)
        if snapshot is not None and snapshot.late:
            findings.append(LATE)
        return ledger, snapshot, findings

    def append(self, steps: Sequence[AnyStep]) -> None:
        """Append steps to the ledger's file of steps; they are on disk when this returns. Call `load` first.

        If no ledger of this boot is on disk yet, or its steps were damaged, the ledger is saved first.

        Raises: OSError if the steps or the ledger cannot be written.
        """
        if self._unsaved is not None:
            self.save(self._unsaved)
        with self._marking("ledger"):
            self._ledger.append([step_to_json(step) for step in steps])

    @property
    def is_long(self) -> bool:
        """Return True if the file of steps is so long that `save` is due."""
        return self._ledger.is_long

    def save(self, ledger: Ledger) -> None:
        """Write the whole ledger to disk and delete the file of steps, because the ledger includes the steps.

        Raises: OSError if the ledger cannot be written.
        """
        with self._marking("ledger"):
            self._ledger.save(ledger_to_json(ledger))
        self._unsaved = None

    def save_mappings(self, ledger: Ledger) -> None:
        """Write the parts of `ledger` that tell about vPCI, and `messages_lost`.

        These are the pages that vPCI was seen to map, `sizes`, `roster`, `ports` and PLACES; an empty part is
        left out. Pages that pcipt mapped are not written here: `save` writes them.

        Raises: OSError if the file cannot be written.
        """
        seen = mapped_to_json(held for held in ledger.mapped if held.by is By.XEN)
        content: dict[str, Any] = {"boot_id": ledger.boot_id, "mappings": seen}
        if ledger.sizes:
            content["sizes"] = {place: list(bars.items()) for place, bars in sorted(ledger.sizes.items())}
        if ledger.ports != Ports():
            content["ports"] = ports_to_json(ledger.ports)
        if ledger.roster != Roster():
            content["roster"] = roster_to_json(ledger.roster)
        for name in PLACES:
            if places := getattr(ledger, name):
                content[name] = sorted(places)
        if ledger.messages_lost is not None:
            content["messages_lost"] = ledger.messages_lost
        with self._marking("mappings"):
            self._mappings.save(content)

    def save_snapshot(self, snapshot: BootSnapshot) -> None:
        """Write the boot snapshot. Raises OSError if it cannot be written."""
        self._boot.save(
            {
                "boot_id": snapshot.boot_id,
                "late": snapshot.late,
                "functions": [str(sbdf) for sbdf in sorted(snapshot.functions)],
                "bridges": {str(sbdf): list(numbers) for sbdf, numbers in sorted(snapshot.bridges.items())},
            }
        )

    def close(self) -> None:
        """Close the file of steps and the directories, if they are open."""
        self._ledger.close()
        self._folder.close()
        if self._mark is not None:
            self._mark.close()

    def _marking(self, name: str) -> contextlib.AbstractContextManager[None]:
        """Return a context in which a file is written: if that fails, the next service is told."""
        return self._mark.watching(name) if self._mark is not None else contextlib.nullcontext()

    def _load_ledger(self, boot_id: str, findings: list[Finding]) -> Ledger:
        """Return the ledger of this boot with the pages that vPCI mapped and all steps that can be applied.

        A finding for each damage is appended to `findings`. If no ledger of this boot was read, or if its
        steps were damaged, `_unsaved` is set to the returned ledger, which must be saved before the next
        append.

        Raises: OSError if a file cannot be read or renamed.
        """
        ledger = self._base(boot_id, findings)
        seen = self._seen(boot_id, findings)
        for held in ledger.mapped:
            seen.mapped.put(held)  # what pcipt did itself is known better
        ledger.mapped, ledger.messages_lost = seen.mapped, seen.messages_lost
        ledger.sizes, ledger.roster, ledger.ports = seen.sizes, seen.roster, seen.ports
        for name in PLACES:
            setattr(ledger, name, getattr(seen, name))
        if self._unsaved is not None:
            self._unsaved = ledger
            return ledger
        first: PciptError | None = None
        left_out = 0

        def take(value: Any) -> None:
            nonlocal first, left_out
            try:
                step_from_json(value).apply(ledger)
            except PciptError as error:
                first, left_out = first or error, left_out + 1

        damage = self._ledger.load_steps(take)
        if damage is not None:
            findings.append(damage)
            self._unsaved = ledger
        if left_out:
            findings.append(self._ledger.rejected_steps(f"{first}, steps left out: {left_out}"))
            self._unsaved = ledger
        return ledger

    def _base(self, boot_id: str, findings: list[Finding]) -> Ledger:
        """Read the ledger without its steps; return an empty ledger if there is none for this boot.

        `_unsaved` is set to the empty ledger, or to None if a ledger of this boot was read. If the file is
        damaged, a finding is appended to `findings`.

        Raises: OSError if the file cannot be read, or, being damaged, cannot be renamed.
        """
        self._unsaved = fresh = Ledger(boot_id)
        content = _taken(self._ledger.load(), findings)
        if content is None:
            return fresh
        try:
            read = ledger_from_json(content)
        except MalformedError as error:
            findings.append(self._ledger.rejected(error.why))
            return fresh
        if read.boot_id != boot_id:
            return fresh
        self._unsaved = None
        return read

    def _seen(self, boot_id: str, findings: list[Finding]) -> Ledger:
        """Return a ledger with what vPCI was seen to do, and when hot-plug messages were lost.

        It is empty if the file is missing, damaged or of another boot. If it is damaged, a finding is
        appended to `findings`.

        Raises: OSError if the file cannot be read or renamed.
        """
        found = Ledger(boot_id)
        content = _taken(self._mappings.load(), findings)
        if not isinstance(content, dict) or content.get("boot_id") != boot_id:
            return found
        told = content.get("messages_lost")
        found.messages_lost = told if isinstance(told, str) else None
        try:
            found.mapped = mapped_from_json(content.get("mappings"))
            found.sizes = _sizes_from_json(content.get("sizes", {}))
            found.roster = roster_from_json(content.get("roster", {"functions": {}}))
            found.ports = ports_from_json(content.get("ports", ports_to_json(Ports())))
            for name in PLACES:
                setattr(found, name, _places_from_json(content.get(name, [])))
        except MalformedError as error:
            findings.append(self._mappings.rejected(error.why))
        return found


class NoStore:
    """A store of the engine that keeps nothing: for a replay, and for a service that only observes."""

    is_long = False

    def load(self, boot_id: str) -> tuple[Ledger, BootSnapshot | None, list[Finding]]:
        return Ledger(boot_id), None, []

    def append(self, written: Sequence[AnyStep]) -> None: ...

    def save(self, ledger: Ledger) -> None: ...

    def save_mappings(self, ledger: Ledger) -> None: ...

    def save_snapshot(self, snapshot: BootSnapshot) -> None: ...

    def close(self) -> None: ...


def _sizes_from_json(value: Any) -> dict[str, Sizes]:
    """Return the sizes that `save_mappings` wrote. Raises: MalformedError if `value` is anything else."""
    try:
        return {
            str(place): {int(bar): None if size is None else int(size) for bar, size in bars}
            for place, bars in value.items()
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise MalformedError("mappings", 0, f"no sizes of BARs: {error!r}") from error


def _places_from_json(value: Any) -> set[str]:
    """Return the places that `save_mappings` wrote. Raises: MalformedError if `value` is no list of texts."""
    if not isinstance(value, list) or not all(isinstance(place, str) for place in value):
        raise MalformedError("mappings", 0, f"no places of functions: {value!r}")
    return set(value)


def _taken(loaded: tuple[Any, Finding | None], findings: list[Finding]) -> Any:
    """Return the content that `Document.load` returned; append its finding to `findings` if it has one."""
    content, damage = loaded
    if damage is not None:
        findings.append(damage)
    return content


def _is_of_boot(finding: Finding) -> bool:
    """Return True if a finding is about a damaged snapshot."""
    return finding.code == "boot-snapshot-damaged"


def _snapshot_from_json(content: object) -> BootSnapshot | None:
    """Return the snapshot that `save_snapshot` wrote; None if `content` is anything else."""
    if not isinstance(content, dict):
        return None
    try:
        bridges = {
            parse_sbdf(key): (int(secondary), int(subordinate))
            for key, (secondary, subordinate) in content["bridges"].items()
        }
        functions = frozenset(parse_sbdf(text) for text in content["functions"])
        return BootSnapshot(str(content["boot_id"]), functions, bridges, bool(content.get("late")))
    except (KeyError, TypeError, ValueError, AttributeError, AddressError):
        return None
