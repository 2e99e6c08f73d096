"""The shell that keeps functions for guests at boot, and the resolver of pcipt: the right function or none.

`make topologies` runs ten thousand machines (PCIPT_TOPOLOGIES); PCIPT_FRESH=N takes others.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from pcipt.host.policy.places import read_identities
from pcipt.host.sysfs import read_machine
from pcipt.pci import ConfigSpace, Sbdf, decode_machine
from pcipt.pci.identity import Identity, identities_of
from pcipt.pci.policy.compiled import text_from_policy
from pcipt.pci.policy.entries import Entry, insisted_on
from pcipt.pci.policy.resolve import State, resolve
from tests.initramfs.topologies import Enumeration, a_source, change, enumerated

REPO = Path(__file__).resolve().parents[2]
KEEP = REPO / "initramfs/keep.sh"
COUNT = int(os.environ.get("PCIPT_TOPOLOGIES", "300"))
FIRST = int(os.environ.get("PCIPT_FRESH") or "1") * 1_000_000
BATCH = 50
WORDS = {State.PRESENT: "kept", State.MISMATCH: "mismatch", State.ABSENT: "absent"}


def shell(*pairs, **environment):
    """Run the hook on pairs of a sysfs and a list; give back (word, address) of each line."""
    words = ["sh", str(KEEP), *(str(word) for pair in pairs for word in pair)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={"PATH": "/usr/bin:/bin", **environment}
    )
    assert done.stderr == ""
    return [tuple(line.split()[:2]) for line in done.stdout.splitlines()]


def identities(numbered):
    machine = decode_machine(numbered.raws.values())
    configs = {sbdf: ConfigSpace(raw.config) for sbdf, raw in numbered.raws.items()}
    return identities_of(machine, configs, numbered.names, {})


def a_case(seed):
    """Write a policy on a machine, change the machine; give back what was meant, the policy, what is now."""
    source = a_source(seed)
    board, before = enumerated(source)
    seen = identities(before)
    chosen = source.sample(sorted(before.placed), min(len(before.placed), source.randint(1, 3)))
    entries = [Entry(insisted_on(seen[sbdf])) for sbdf in chosen]
    meant = [before.placed[sbdf] for sbdf in chosen]
    kinds = [change(source, board) for _ in range(source.choice((1, 1, 2, 3)))]
    try:
        return meant, entries, Enumeration(board), kinds
    except ValueError:  # there are not enough buses for so many reserves
        board.reserve, board.align = 0, 1
        return meant, entries, Enumeration(board), kinds


def is_right(meant, placed):
    """Is this the function that was meant? Equal cards without a number are told apart by their place."""
    if placed is None or placed.function != meant.function:
        return False
    if placed.card is meant.card:
        return True
    equal = (placed.card.model, placed.card.serial, placed.card.revision)
    unnumbered = (meant.card.model, None, meant.card.revision)
    return equal == unnumbered and meant.card.serial is None and placed.position == meant.position


@pytest.fixture
def place():
    """A directory in memory, where there is one: thousands of small files are written."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    directory = tempfile.mkdtemp(prefix="pcipt-keep.", dir=memory)
    yield Path(directory)
    shutil.rmtree(directory)


@pytest.mark.timeout(max(120, COUNT))  # a machine is some hundred files, and a second on a busy processor
def test_the_right_function_or_none_and_both_resolvers_agree(place):
    told = {"kept": 0, "mismatch": 0, "absent": 0}
    kinds = set()
    for start in range(FIRST, FIRST + COUNT, BATCH):
        pairs, expected = [], []
        for seed in range(start, min(start + BATCH, FIRST + COUNT)):
            meant, entries, now, done = a_case(seed)
            kinds.update(done)
            at = {placed.position: placed for placed in now.placed.values()}
            for wanted, found in zip(meant, resolve(entries, identities(now)), strict=True):
                word = WORDS[found.state]
                told[word] += 1
                expected.append((seed, word, "-" if found.sbdf is None else str(found.sbdf)))
                if found.kept is not None:
                    assert is_right(wanted, now.placed.get(found.kept)), (seed, done)
                there = at.get(wanted.position)
                if there is not None and there.card is wanted.card:
                    assert found.state is State.PRESENT, (seed, done)  # it is where it was
            tree = place / str(seed)
            now.write(tree)
            (tree / "list").write_text(text_from_policy(entries, ()))
            pairs.append((tree, tree / "list"))
        assert shell(*pairs) == [(word, sbdf) for _, word, sbdf in expected], start
        for _, word, sbdf in expected:
            assert word != "kept" or sbdf != "-"
        for tree, _ in pairs:
            shutil.rmtree(tree)
    assert min(told.values()) > COUNT / 20, told  # each answer was given often
    assert kinds == {"add", "remove", "swap", "move", "reserve"}


def test_only_what_is_kept_gets_the_driver_of_guests(place):
    overridden = 0
    for seed in range(FIRST, FIRST + 20):
        _, entries, now, _ = a_case(seed)
        tree = place / str(seed)
        now.write(tree)
        (tree / "list").write_text(text_from_policy(entries, ()))
        kept = {sbdf for word, sbdf in shell((tree, tree / "list")) if word == "kept"}
        written = {path.parent.name: path.read_text() for path in tree.rglob("driver_override")}
        assert written == dict.fromkeys(kept, "pciback\n")
        overridden += len(written)
    assert overridden


def test_what_is_written_is_what_linux_shows(place):
    """The files that the shell reads give pcipt the same identities as the values in memory."""
    for seed in range(FIRST, FIRST + 5):
        _, _, now, _ = a_case(seed)
        root = place / str(seed)
        now.write(root / "sys")
        (root / "sys/bus/pci/devices").mkdir(parents=True)
        for sbdf, home in now.homes.items():
            (root / f"sys/bus/pci/devices/{sbdf}").symlink_to(f"../../../devices/{home}")
            (root / f"sys/devices/{home}/config").write_bytes(now.raws[sbdf].config)
        raws = read_machine(str(root))
        assert read_identities(str(root), decode_machine(raws), raws) == identities(now)


@pytest.fixture
def one(place):
    """A machine with one kept function; give back the directory of it and a call of the hook."""
    meant, entries, now, _ = a_case(FIRST)
    for seed in range(FIRST, FIRST + 100):
        meant, entries, now, _ = a_case(seed)
        found = resolve(entries, identities(now))[0]
        if found.state is State.PRESENT and meant[0].card.serial is not None:
            break
    now.write(place)
    (place / "list").write_text(text_from_policy(entries[:1], ()))
    home = place / "devices" / now.homes[found.kept]
    return home, lambda: shell((place, place / "list"))


def test_a_driver_that_is_there_is_not_taken_away(one):
    home, run = one
    (home / "driver").mkdir()
    assert run() == [("late", home.name)]
    assert not (home / "driver_override").exists()


def test_the_name_of_the_running_kernels_driver_is_used(one, place):
    home, run = one
    (place / "bus/pci/drivers/xen-pciback").mkdir(parents=True)
    assert run() == [("kept", home.name)]
    assert (home / "driver_override").read_text() == "xen-pciback\n"


def test_what_cannot_be_written_is_told(one):
    home, run = one
    (home / "driver_override").mkdir()
    assert run() == [("failed", home.name)]


@pytest.mark.parametrize("name", ["vendor", "device", "subsystem_vendor", "revision", "config"])
@pytest.mark.parametrize("content", [None, b"", b"0xffff\n", b"\xff" * 4096])
def test_what_is_not_certain_is_left_alone(one, name, content):
    home, run = one
    if content is None:
        (home / name).unlink()
    else:
        (home / name).write_bytes(content)
    assert run() == [("mismatch", home.name)]
    assert not (home / "driver_override").exists()


def test_a_list_of_capabilities_that_goes_round_ends(one):
    home, run = one
    data = bytearray((home / "config").read_bytes())
    data[0x100:0x104] = (1 | 1 << 16 | 0x100 << 20).to_bytes(4, "little")
    (home / "config").write_bytes(data)
    assert run() == [("mismatch", home.name)]


def test_both_resolvers_find_the_same_ports(place):
    """A policed port is found by its path alone: the bridge that is there, and nothing that is none."""
    told = {"port": 0, "noport": 0}
    for seed in range(FIRST, FIRST + 40):
        source = a_source(seed)
        board, before = enumerated(source)
        paths = [identity.path for identity in identities(before).values()]
        ports = source.sample(paths, min(len(paths), 4))
        change(source, board)
        try:
            now = Enumeration(board)
        except ValueError:
            now = before
        machine, found = decode_machine(now.raws.values()), []
        for each in resolve([Entry(Identity(path)) for path in ports], identities(now)):
            bridge = each.sbdf is not None and machine.functions[each.sbdf].is_bridge
            word = "port" if bridge else "noport"
            found.append((word, "-" if each.sbdf is None else str(each.sbdf)))
            told[word] += 1
        tree = place / str(seed)
        now.write(tree)
        (tree / "list").write_text(text_from_policy((), ports))
        assert shell((tree, tree / "list")) == found, seed
        assert not list(tree.rglob("driver_override"))
    assert min(told.values()) > 5, told


def test_two_host_bridges_of_one_name_are_not_chosen_between(one, place):
    _, run = one
    for number in range(2):
        node = place / f"devices/pci0007:0{number}/firmware_node"
        node.mkdir(parents=True)
        (node / "path").write_text((place / "list").read_text().splitlines()[1].split()[0] + "\n")
    assert run() == [("absent", "-")]


def test_it_is_short_and_plain():
    text = KEEP.read_text()
    assert len(text.splitlines()) <= 100
    assert text.startswith("#!/bin/sh\n")


@pytest.mark.parametrize("program", ["dash", "busybox"])
def test_the_shells_of_an_initramfs_take_it(program, one, place):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    home, _ = one
    words = [program, "sh"] if program == "busybox" else [program]
    done = subprocess.run([*words, KEEP, place, place / "list"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["kept", home.name]
    assert Sbdf(*(int(part, 16) for part in home.name.replace(".", ":").split(":"))).fits_xen
