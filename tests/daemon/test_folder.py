"""Writing is as suspicious as reading: whatever lies in the way, nothing waits and nothing is led away."""

import ast
import os
import stat
from pathlib import Path

import pytest

from pcipt.daemon.folder import Folder, open_directory
from pcipt.daemon.lock import only_one
from pcipt.daemon.store import FileStore
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import parse_sbdf
from pcipt.remap.actions import AddDevice
from pcipt.remap.ledger import Event, Ledger
from pcipt.remap.steps import Step

REPOSITORY = Path(__file__).resolve().parents[2]
PORT = parse_sbdf("00:1c.0")
STEP = Step(AddDevice(PORT, "why"), Event.INTEND, "now")


def link_away(at):
    os.symlink(at.parent.parent / "precious", at)


def busy_fifo(at):
    """A FIFO with a reader: opening it for writing succeeds, and a write to it would fill it."""
    os.mkfifo(at)
    READERS.append(os.open(at, os.O_RDONLY | os.O_NONBLOCK))


READERS = []
IN_THE_WAY = [os.mkfifo, busy_fifo, os.mkdir, link_away]


@pytest.fixture
def state(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "state").mkdir()
    yield tmp_path / "state"
    while READERS:
        os.close(READERS.pop())
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("lay", IN_THE_WAY)
@pytest.mark.parametrize("name", ["ledger", "boot", "mappings"])
@pytest.mark.parametrize("where", ["{}", "{}.steps", ".{}.new", "{}.damaged-1"])
def test_nothing_that_lies_in_the_way_keeps_the_state_from_being_written(state, lay, name, where):
    lay(state / where.format(name))
    store = FileStore(str(state))
    store.load("boot")
    ledger = Ledger("boot").step(AddDevice(PORT, "why"), Event.INTEND)
    snapshot = BootSnapshot("boot", frozenset({PORT}), {})
    store.append([STEP])
    store.save(ledger)
    store.append([STEP])
    store.save_mappings(ledger)
    store.save_snapshot(snapshot)
    store.close()
    assert FileStore(str(state)).load("boot")[1:] == (snapshot, [])
    assert stat.S_ISREG(os.lstat(state / name).st_mode)


@pytest.mark.parametrize("lay", IN_THE_WAY)
def test_what_is_no_file_is_no_lock(state, lay):
    lay(state / "lock")
    with only_one(str(state)) as why:
        assert why  # and the daemon only observes


def test_the_name_of_a_new_file_cannot_be_foreseen_and_its_remains_are_swept(state, monkeypatch):
    folder = Folder(str(state))
    seen = []
    monkeypatch.setattr(folder, "rename", lambda name, _new: seen.append(name))  # killed before the rename
    for _ in range(2):
        folder.replace("ledger", [b"x"])
    assert sorted(os.listdir(state)) == sorted(seen)
    assert len(set(seen)) == 2
    (state / ".ledger.steps.new").write_text("somebody's")
    folder.sweep("ledger")
    assert os.listdir(state) == [".ledger.steps.new"]


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_state_directory_in_which_others_write_is_not_used(state, mode):
    os.chmod(state, mode)
    if mode == 0o770:
        os.chown(state, -1, 12345)
    with pytest.raises(PermissionError, match="others than root"):
        Folder(str(state)).replace("ledger", [b"x"])
    Folder(str(state), own=False).replace("pcipt.prom", [b"x"])


def test_a_state_directory_of_another_account_is_not_used(state):
    os.chown(state, 12345, -1)
    with pytest.raises(PermissionError, match="others than root"):
        Folder(str(state)).open_for_reading("ledger")


def test_a_directory_that_was_opened_stays_the_one(state, tmp_path):
    folder = Folder(str(state))
    folder.replace("ledger", [b"one"])
    state.rename(tmp_path / "moved")
    os.symlink(tmp_path, state)
    folder.replace("ledger", [b"two"])
    assert (tmp_path / "moved" / "ledger").read_bytes() == b"two"
    assert not (tmp_path / "ledger").exists()


@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_link_in_a_path_is_followed_where_only_root_can_lay_it(state, tmp_path, mode):
    os.symlink(state, tmp_path / "link")
    os.chmod(tmp_path, mode)
    try:
        if mode == 0o755:
            os.close(open_directory(str(tmp_path / "link")))
        else:
            with pytest.raises(OSError, match=r"symbolic|directory"):
                open_directory(str(tmp_path / "link"))
    finally:
        os.chmod(tmp_path, 0o700)


# Who else opens a file for writing, or changes a name: module, what it writes.
WRITERS = {
    "pcipt/daemon/folder.py": "all files of the daemon",
    "pcipt/daemon/lock.py": "the state directory itself, and the pid through an open lock",
    "pcipt/daemon/control/listener.py": "the control socket: a file that is no socket is refused before",
    "pcipt/daemon/control/server.py": "deletes the control socket that it made",
    "pcipt/cli/picture/file.py": "a drawing, into the file that the user names",
    "pcipt/cli/commands/pvh/tables.py": "tables, exclusively, into a directory of the user's that is empty",
    "pcipt/cli/main.py": "/dev/null",
    "pcipt/cli/commands/report.py": "an archive, exclusively, under the name that the user gives",
    "pcipt/api/machine.py": "a directory of its own, for an archive that is read",
    "pcipt/cli/machine/unpacked.py": "a directory of its own, for an archive that is read",
    "pcipt/host/policy/boots.py": "recordings of boots, in the root's own directory, by the recorder",
    "pcipt/host/policy/policy_files.py": "the policy, in the root's own directory below /etc",
    "pcipt/host/report/archive.py": "an archive that is open already, and what is unpacked from one",
    "pcipt/cli/machine/handover.py": "a lock beside the control socket; nothing is written",
    "pcipt/host/control.py": "a function's registers, in sysfs",
    "pcipt/host/recorder.py": "a recording, exclusively, into a directory that it made",
    "pcipt/host/toolstack.py": "sysfs",
    "pcipt/watch/tracefs.py": "tracefs",
}
CHANGES = {
    "replace", "rename", "renames", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs", "symlink",
    "link", "mkfifo", "mknod", "chmod", "chown", "truncate",
}  # fmt: skip
READS = ("O_RDONLY", "_DIRECTORY", "O_PATH", "_FILE")


def writes(tree):
    """Return the lines of a module that open a file for writing or change a name."""
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        text, name = ast.unparse(call), ast.unparse(call.func)
        opens = name == "os.open" and not any(map(text.__contains__, READS))
        modes = [str(arg.value) for arg in call.args[1:2] if isinstance(arg, ast.Constant)]
        opens |= name in ("open", "os.fdopen", "io.open") and any(set(mode) & set("wax+") for mode in modes)
        changes = name.startswith("os.") and name.removeprefix("os.") in CHANGES
        others = name.startswith(("tempfile.", "shutil.rm", "shutil.copy", "shutil.move")) or name.endswith(
            (".write_text", ".write_bytes")
        )
        found += [call.lineno] if opens or changes or others else []
    return found


def test_everything_that_is_written_is_written_by_one_module():
    found = {}
    for path in sorted((REPOSITORY / "pcipt").rglob("*.py")):
        lines = writes(ast.parse(path.read_text()))
        if lines:
            found[str(path.relative_to(REPOSITORY))] = lines
    assert sorted(found) == sorted(WRITERS)


@pytest.mark.parametrize(
    "source",
    ["open(x, 'w')", "os.open(x, os.O_CREAT)", "os.replace(a, b)", "tempfile.mkdtemp()"],
)
def test_the_search_for_writers_finds_them(source):
    assert writes(ast.parse(source))
    assert not writes(ast.parse("open(x); os.open(x, os.O_RDONLY); text.replace('a', 'b')"))
