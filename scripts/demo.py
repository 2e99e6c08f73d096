"""Show the service at work on two recorded machines with a simulated Xen. `make demo` runs this.

A child process runs the service. It plays the next scene of the recording at each byte on its standard input.
After each scene the parent prints what happened, what pcipt did, and the output of a command that shows it.
The parent waits until that output has the words of the scene, so a scene without an effect is an error: exit
code 1. Reading writes and messages, settling and acting are those of the real service; only Linux and Xen are
simulated.
"""

import argparse
import contextlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable, Iterator
from itertools import chain

import attrs

from pcipt.cli.main import main as pcipt
from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.replay.player import TraceSource
from pcipt.daemon.replay.recording import RecordedHotplug, Replay
from pcipt.daemon.settings import Settings
from pcipt.daemon.telling.log import start_logging
from pcipt.daemon.watcher import Watch
from pcipt.host.recorded import Step
from pcipt.host.uevents import HostEvent, HotplugEvent
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.xen.interface import Dom0Kind, Owner, OwnerKind
from pcipt.xen.simulated.model import DOM0
from pcipt.xen.simulated.reserved import ReservedRegion

WIDTH = 100
PATIENCE = 30.0  # seconds until a scene must have its effect; it takes less than two
TEST, NIC, VF, DISK, CARD = "00:06.0", "01:00.0", "03:00.1", "03:00.0", "02:00.0"
RESERVED = ReservedRegion(Frames(Gfn(0x7FFE0), 16), (parse_sbdf("0000:" + CARD),))


@attrs.frozen
class Scene:
    """One part of the demonstration.

    `last` is the last event of the recording that belongs to it: the number of a write, or the first words of
    a step; None plays nothing of the recording. `writes` are more writes after it (function, offset, size,
    value); `owners` are functions that get another owner in Xen. `shown` is the command, `words` what its
    output must have, `lines` are words of those lines of the output that are printed (all if it is empty).
    """

    title: str
    happened: str
    did: str
    shown: str
    words: tuple[str, ...]
    lines: tuple[str, ...] = ()
    last: int | str | None = None
    writes: tuple[tuple[str, int, int, int], ...] = ()
    owners: tuple[tuple[str, Owner], ...] = ()


PVH = (
    Scene(
        "Xen does not know a function",
        f"Somebody made Xen forget {TEST}. Linux still has the function.",
        "pcipt told Xen about it (add-device).",
        f"history {TEST}",
        ("add-device: done",),
        ("add-device",),
        last=2,
    ),
    Scene(
        "An ignored write is repeated",
        f"Linux wrote a new address to BAR 0 of {TEST} while the function decodes memory. Xen 4.17 "
        "ignores such a write and says nothing: Linux uses an address at which no device answers.",
        "pcipt read the register back, switched decoding off, repeated the write and switched decoding on "
        "(rewrite-bar). Xen then mapped the BAR at its new address.",
        f"history {TEST}",
        ("rewrite-bar", "fe100000"),
        ("rewrite-bar",),
        last=5,
    ),
    Scene(
        "A BAR moves and is mapped where it goes",
        f"Linux switched decoding of {TEST} off, wrote the old address back, and switched decoding on.",
        "Xen moved the mapping. pcipt followed and had nothing to repair; the 1:1 map has the new address.",
        "mappings",
        (f"0000:{TEST}", "fe003000"),
        ("SBDF", f"0000:{TEST}"),
        last=10,
        writes=((TEST, 0x04, 2, 0x0102),),
    ),
    Scene(
        "A card is plugged in",
        f"A network card was plugged in at {NIC}. Linux gave addresses to its BARs.",
        "The kernel told Xen, and Xen mapped the BARs. pcipt noted what is mapped.",
        "mappings",
        (f"0000:{NIC}",),
        ("SBDF", f"0000:{NIC}"),
        last="a NIC is plugged",
    ),
    Scene(
        "The card is unplugged",
        "The card was pulled out while its BARs were mapped. Xen 4.17 leaves them mapped.",
        "pcipt unmapped each of them (unmap-mmio), so that the addresses are free for the next card.",
        f"history {NIC}",
        ("unmap-mmio",),
        ("unmap-mmio",),
        last="the NIC",
    ),
    Scene(
        "Virtual functions appear",
        f"The driver of {DISK} switched two virtual functions (VFs) on. Xen does not map BARs of VFs.",
        "pcipt mapped them (map-mmio), and unmaps them when the driver switches them off.",
        f"history {VF}",
        ("map-mmio",),
        ("map-mmio",),
        last="two virtual functions",
    ),
    Scene(
        "Virtual functions disappear",
        "The driver switched the VFs off.",
        "pcipt unmapped their BARs (unmap-mmio).",
        f"history {VF}",
        ("unmap-mmio",),
        ("unmap-mmio",),
        last="they are switched off",
    ),
    Scene(
        "A bus gets another number",
        f"Linux changed the bus number behind bridge 00:05.0 from 03 to 05. {DISK} answers at 05:00.0 "
        "now, and Xen still lists the old address.",
        "pcipt told Xen the new address and removed the old one (add-device, remove-device).",
        "history 05:00.0",
        ("add-device: done",),
        ("add-device",),
        last=61,
    ),
    Scene(
        "The bus gets its old number back",
        f"Linux wrote 03 again. {DISK} has its old address.",
        "pcipt told Xen the same (add-device, remove-device).",
        "history 03:00.0",
        ("it is back",),
        ("it is back", "moved it to 0000:03:00.0"),
        last=68,
    ),
    Scene(
        "A reserved region is withdrawn",
        f"Firmware reserved 64 KiB of memory for {CARD} (this scene is not in the recording). The card "
        "was given to guest 1.",
        "No device of dom0 needs the region any more: pcipt took it out of dom0's 1:1 map "
        "(withdraw-reserved).",
        "rmrr",
        ("withdrawn",),
        (),
        owners=((CARD, Owner(OwnerKind.DOMAIN, 1)),),
    ),
    Scene(
        "The reserved region is restored",
        f"{CARD} was given back to dom0.",
        "pcipt mapped the region again (restore-reserved). `pcipt reclaim` does this before dom0's "
        "driver gets a card.",
        "rmrr",
        ("by-pcipt",),
        (),
        owners=((CARD, DOM0),),
    ),
)
PV = (
    Scene(
        "The same on a PV dom0, as most hosts have it",
        f"Xen was made to forget {TEST}.",
        "pcipt told Xen about it.",
        f"history {TEST}", ("add-device: done",), ("add-device",), last=2,
    ),
    Scene(
        "A bus gets another number on a PV dom0",
        "A card came and went, virtual functions too, and the bus 03 became 05.",
        "pcipt told Xen the new address. It mapped nothing, because a PV dom0 has no 1:1 map.",
        "history 05:00.0", ("add-device: done",), ("add-device",), last=56,
    ),
    Scene("", "", "", "mappings", ("dom0 is PV",)),
)  # fmt: skip


class Messages(RecordedHotplug):
    """The hot-plug messages of the scenes.

    Its descriptor is the standard input of the child: each byte asks for the next scene.
    """

    def __init__(self, replay: Replay, scenes: Iterable[Scene], source: "Writes") -> None:
        super().__init__()
        self._replay = replay
        self._scenes = iter(scenes)
        self._events = replay.events()
        self._source = source

    def fileno(self) -> int:
        return sys.stdin.fileno()

    def read(self) -> list[HostEvent]:
        """Play the next scene if the parent has asked for it; return the messages that belong to it.

        End the service if the parent is gone: its end of the pipe is closed, which is ready for ever.
        """
        if _is_ready(self.fileno()):
            if os.read(self.fileno(), 1):
                self._play(next(self._scenes))
            else:
                os.kill(os.getpid(), signal.SIGTERM)
        return super().read()

    def _play(self, scene: Scene) -> None:
        for event in chain(self._until(scene.last), _writes(scene.writes)):
            if isinstance(event, Step):
                self._replay.take(event)
                self.push(self._replay.hotplug.read())
                continue
            if isinstance(event, ConfigWrite):
                self._replay.write(event)
            self._source.push(event)
        for name, owner in scene.owners:
            sbdf = parse_sbdf("0000:" + name)
            self._replay.xen.give(sbdf, owner)
            self.push([HotplugEvent("change", sbdf, 0, synthetic=False)])
        self._source.ring()

    def _until(self, last: int | str | None) -> Iterator[ConfigWrite | Lost | Step]:
        """Yield the next events of the recording up to and including `last`; nothing if it is None."""
        for event in self._events if last is not None else ():
            yield event
            if isinstance(event, ConfigWrite) and event.number == last:
                return
            if isinstance(event, Step) and isinstance(last, str) and event.about.startswith(last):
                return


class Writes(TraceSource):
    """The writes of the scenes, with a descriptor that is readable while there are writes."""

    def __init__(self) -> None:
        super().__init__()
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._read

    def ring(self) -> None:
        """Make the descriptor readable."""
        os.write(self._write, b"\0")

    def read(self) -> list[ConfigWrite | Lost]:
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 64)
        return super().read()

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


def _is_ready(fileno: int) -> bool:
    import select

    return bool(select.select([fileno], [], [], 0)[0])


def _writes(writes: Iterable[tuple[str, int, int, int]]) -> Iterator[ConfigWrite]:
    for name, offset, size, value in writes:
        yield ConfigWrite(parse_sbdf("0000:" + name), offset, size, value)


def serve(machine: str, directory: str, scenes: tuple[Scene, ...]) -> int:
    """Run the service on a recorded machine until SIGTERM; play a scene for each byte on standard input."""
    reserved = (RESERVED,) if any(scene.owners for scene in scenes) else ()
    replay = Replay(machine, reserved=reserved)
    os.mkdir(os.path.join(directory, "state"))
    source = Writes()
    watch = Watch(source, "trace", obeys=replay.xen.identity.dom0 is Dom0Kind.PV)
    options = Options(
        os.path.join(directory, "control"), os.path.join(directory, "state"), "", settings_required=False
    )
    messages = Messages(replay, scenes, source)
    Daemon(replay.host, replay.xen, messages, options, Settings(), start_logging("info"), watch).run()
    return 0


class Show:
    """Starts the service on a machine in `directory`, asks for its scenes and prints them."""

    def __init__(self, machine: str, directory: str, log: str) -> None:
        self._control = os.path.join(directory, "control")
        command = [sys.executable, __file__, machine, "--serve", directory]
        with open(log, "a", encoding="utf-8") as out:
            self._service = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=out, bufsize=0
            )
        self._log = log

    def play(self, number: int, scene: Scene) -> None:
        """Let the service play a scene; print the scene and the output that shows it."""
        if scene.title:
            print(f"\n{number}. {scene.title}")
            print(
                textwrap.fill(
                    f"{scene.happened} {scene.did}",
                    WIDTH,
                    initial_indent="   ",
                    subsequent_indent="   ",
                    break_on_hyphens=False,
                )
            )
        sys.stdout.flush()
        if scene.title and self._service.stdin is not None:
            self._service.stdin.write(b"\n")
        self._print(scene.shown, self._answer(scene.shown, scene.words), scene.lines)

    def ready(self) -> None:
        """Wait until the service answers."""
        self._answer("status", ("Health",))

    def print(self, command: str) -> None:
        """Print the output of a command of pcipt."""
        self._print(command, self._answer(command, ()), ())

    def close(self) -> None:
        """Stop the service."""
        self._service.terminate()
        self._service.wait()
        if self._service.stdin is not None:
            self._service.stdin.close()

    def _answer(self, command: str, words: tuple[str, ...]) -> str:
        """Return the output of a command as soon as it has all `words`.

        Raises: SystemExit if it does not have them within PATIENCE.
        """
        end = time.monotonic() + PATIENCE
        while True:
            out = io.StringIO()  # both, as on a terminal: what there is nothing of is told on stderr
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                code = pcipt([*command.split(), "--socket", self._control])
            if code in {0, 4} and all(word in out.getvalue() for word in words):
                return out.getvalue()
            if time.monotonic() > end or self._service.poll() is not None:
                sys.exit(
                    f"pcipt {command} does not show {' and '.join(words)}; see {self._log}\n{out.getvalue()}"
                )
            time.sleep(0.1)

    @staticmethod
    def _print(command: str, text: str, lines: tuple[str, ...]) -> None:
        print(f"   $ pcipt {command}")
        for line in text.splitlines():
            if not lines or any(word in line for word in lines):
                print(f"   {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Show the service at work on recorded machines.")
    parser.add_argument("machine", help="the recording to play: a machine with a PVH dom0")
    parser.add_argument("pv", nargs="?", help="a recording with a PV dom0, played after it")
    parser.add_argument("--log", default=os.devnull, metavar="FILE", help="where the service's log goes")
    parser.add_argument("--serve", metavar="DIR", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.machine, args.serve, PV if "-pv" in os.path.basename(args.machine)[-3:] else PVH)
    print(f"The service of pcipt runs on a recorded machine ({args.machine}: Xen 4.17, PVH dom0, QEMU).")
    print("Linux and Xen are simulated; everything else is what runs in dom0.")
    perform(args.machine, PVH, args.log, ("status",))
    if args.pv:
        perform(args.pv, PV, args.log, (), len(PVH))
    print("\nNext: .venv/bin/pcipt help, and docs/guide/README.md")
    return 0


def perform(machine: str, scenes: tuple[Scene, ...], log: str, after: Iterable[str], done: int = 0) -> None:
    """Play all scenes on a machine, then print the output of the commands `after`."""
    with tempfile.TemporaryDirectory() as directory:
        show = Show(machine, directory, log)
        try:
            show.ready()
            for number, scene in enumerate(scenes, done + 1):
                show.play(number, scene)
            for command in after:
                print("\nAt the end:")
                show.print(command)
        finally:
            show.close()


if __name__ == "__main__":
    sys.exit(main())
