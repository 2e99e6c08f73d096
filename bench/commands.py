"""Rows about commands: start, `list`, `tree`, `check`, each as a whole process against a whole process."""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bench.timing import Row, compared, processor

Command = Callable[..., list[str]]
BARE = [sys.executable, "-c", "import argparse, json, socket"]
PCIPT = [str(Path(sys.executable).with_name("pcipt"))]
SUBJECT = "0000:01:00.0"
NO_LSPCI = "lspci is not installed (package pciutils)"
# prints the highest resident memory of the process, in KiB
_MEMORY = (
    "import sys; from pcipt.cli.main import main; main(sys.argv[1:]); sys.stdout.flush(); "
    "print(next(l.split()[1] for l in open('/proc/self/status') if l[:6] == 'VmHWM:'), file=sys.stderr)"
)


def pcipt(*words: str, root: str) -> list[str]:
    """Return the command line of pcipt for the recorded machine `root`."""
    return [*PCIPT, *words, "--root", root]


def lspci(options: str, root: str) -> list[str]:
    """Return the command line of lspci for the same machine."""
    return ["lspci", "-A", "linux-sysfs", "-O", f"sysfs.path={root}/sys/bus/pci", options]


def memory(root: str) -> float:
    """Return the highest resident memory of `list --json`, in MiB."""
    command = [sys.executable, "-c", _MEMORY, "list", "--json", "--root", root]
    told = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True, text=True)
    return int(told.stderr.split()[-1]) / 1024


def start(root: str, rounds: int) -> Iterator[Row]:
    """Yield the rows about starting, on the small recorded machine `root`."""
    peer = "bare Python with argparse, json, socket"
    at = "--root", root
    for work, words, bound in (
        ("start of `status`", ("status", "--socket", f"{root}/no-daemon"), 1.4),
        ("start of `--version`", ("--version",), 1.15),
        ("start of `list -s X`", ("list", "-s", SUBJECT, *at), 2.2),
        ("start of `show X`", ("show", SUBJECT, *at), 2.2),
        ("start of `check X`", ("check", SUBJECT, *at), 3.0),
    ):
        yield Row(work, peer, compared([*PCIPT, *words], BARE, rounds), bound)


def listing(root: Callable[[str], str], count: int, rounds: int) -> Iterator[Row]:
    """Yield the rows about all functions. `root` makes a machine of `count` functions, given its shape."""
    here = shutil.which("lspci") is not None
    for shape in ("flat", "deep"):
        for words, options, bound in (
            (("list",), "-D", 1.0),
            (("list", "--json"), "-Dnvvv", 1.0),
            (("tree",), "-t", 1.0),
        ):
            work, peer = f"`{' '.join(words)}`, {count:,}, {shape}", f"`lspci {options}`"
            if not here:
                yield Row(work, peer, bound=bound, skipped=NO_LSPCI)
                continue
            found = compared(pcipt(*words, root=root(shape)), lspci(options, root(shape)), rounds)
            yield Row(work, peer, found, bound)
    whole = pcipt("list", "--json", root=root("flat"))
    for work, words, bound in (
        (f"`check X` of one, {count:,}", ("check", SUBJECT), 0.3),
        (f"`check` of all, {count:,}", ("check",), 2.0),
    ):
        yield Row(work, "`list --json`", compared(pcipt(*words, root=root("flat")), whole, rounds), bound)
    yield Row(f"memory of `list --json`, {count:,}", "none", (memory(root("flat")),), 30, " MiB")


def growth(root: Callable[[str, int], str], sizes: tuple[int, ...]) -> dict[str, list[float]]:
    """Return the milliseconds of the processor of each command at each size, on flat machines."""
    commands: dict[str, Command] = {
        "pcipt list": partial(pcipt, "list"),
        "pcipt list --json": partial(pcipt, "list", "--json"),
        "pcipt tree": partial(pcipt, "tree"),
    }
    if shutil.which("lspci") is not None:
        commands |= {f"lspci {each}": partial(lspci, each) for each in ("-D", "-Dnvvv", "-t")}
    found: dict[str, list[float]] = {name: [] for name in commands}
    for size in sizes:
        at = root("flat", size)
        for name, command in commands.items():
            seconds = min(processor(command(root=at)) for _ in range(3 if size < 10_000 else 1))
            found[name].append(1e3 * seconds)
    return found
