"""A disk below the state directory: writes fail, are torn by a kill, are lost or reordered by a power cut.

The files are real ones, in memory. `Disk` sees each call of module os that concerns them, and remembers what
was synced. The model of a power cut: the directory is as it was at its last sync or after any later change;
each file in it has its synced content, its last one, or a mix of both.
"""

import builtins
import contextlib
import errno
import itertools
import os
import stat
import types
from unittest import mock

from pcipt.daemon import folder
from tests.engine.stage import Killed

ALWAYS = 1 << 30
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_NAMES = ("open", "write", "fsync", "fdatasync", "ftruncate", "replace", "rename", "unlink", "link")


class Disk:
    """`path` is the directory. `die_at` kills at the n-th change, `late` after it was made.

    `refuse` maps an errno to how many changes it still refuses.
    """

    def __init__(self, path, random):
        self.path = path
        self._random = random
        self.changes = 0
        self.die_at = None
        self.late = False
        self.dead = False
        self.refuse = {}
        self._synced = {}  # of each inode, its content at the last sync
        self._last = {}  # of an inode that has no name any more, its content
        self._fresh = itertools.count()  # names of new files are the same in each run
        self._directories = [{}]  # names and inodes at the last sync of the directory and after each change

    @contextlib.contextmanager
    def holds(self):
        """Look at every call of os; at the end all is as before."""
        real = {name: getattr(os, name) for name in _NAMES}
        self._real = real
        with contextlib.ExitStack() as stack:
            for name in _NAMES:
                stack.enter_context(mock.patch.object(os, name, self._wrapper(name, real[name])))
            names = types.SimpleNamespace(token_hex=lambda size: f"{next(self._fresh):0{2 * size}x}")
            stack.enter_context(mock.patch.object(folder, "secrets", names))
            yield

    def heal(self):
        self.refuse.clear()
        self.die_at = None

    def cut_power(self):
        """Leave on the disk what may be there after a power cut."""
        names = self._random.choice(self._directories)
        content = {name: self._survivor(inode) for name, inode in sorted(names.items())}
        for name in sorted(os.listdir(self.path)):
            self._real["unlink"](os.path.join(self.path, name))
        for name, data in content.items():
            with builtins.open(os.path.join(self.path, name), "wb") as file:
                file.write(data)
        present = self._present()
        self._last.clear()
        self._synced = {inode: content[name] for name, inode in present.items()}
        self._directories = [present]

    def _survivor(self, inode):
        synced, last = self._synced.get(inode, b""), self._content(inode)
        whole = self._random.choice([synced, last])
        if synced == last or self._random.random() < 0.5:
            return whole
        kept = next(
            (at for at, pair in enumerate(zip(synced, last, strict=False)) if pair[0] != pair[1]), None
        )
        kept = min(len(synced), len(last)) if kept is None else kept
        cut = self._random.randrange(kept, len(last) + 1)
        return self._random.choice(
            [last[:cut], last[:cut] + b"\0" * (len(last) - cut), last[:cut] + synced[cut:]]
        )

    def _content(self, inode):
        for name, number in self._present().items():
            if number == inode:
                with builtins.open(os.path.join(self.path, name), "rb") as file:
                    return file.read()
        return self._last.get(inode, b"")

    def _present(self):
        with os.scandir(self.path) as found:
            return {entry.name: entry.inode() for entry in found if entry.is_file(follow_symlinks=False)}

    def _wrapper(self, name, real):
        def wrapped(*arguments, **more):
            if not self._concerns(name, arguments, more):
                return real(*arguments, **more)
            return self._change(name, lambda: real(*arguments, **more), arguments)

        return wrapped

    def _concerns(self, name, arguments, more):
        if name in {"write", "fsync", "fdatasync", "ftruncate"}:
            return self._is_ours(arguments[0])
        if name == "open" and not arguments[1] & _WRITES:
            return False
        directory = more.get("dir_fd", more.get("src_dir_fd"))
        if directory is not None:
            return os.readlink(f"/proc/self/fd/{directory}") == self.path
        return isinstance(arguments[0], str) and arguments[0].startswith(f"{self.path}/")

    def _is_ours(self, descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return path == self.path or path.startswith(f"{self.path}/")

    def _change(self, name, act, arguments):
        """Let one change happen, fail, or be the last one."""
        if self.dead:
            raise Killed
        self.changes += 1
        dies = self.changes == self.die_at
        if dies and not self.late:
            self._tear(name, arguments)
            self.dead = True
            raise Killed
        for number in sorted(self.refuse):
            if self.refuse[number] > 0 and name != "unlink":
                self.refuse[number] -= 1
                self._fail(name, arguments, number)
                raise OSError(number, os.strerror(number))
        self._remember(name, arguments)
        result = act()
        if name in {"fsync", "fdatasync"}:
            self._sync(arguments[0])
        elif name in {"open", "replace", "rename", "unlink", "link"}:
            self._directories.append(self._present())
        if dies:
            self.dead = True
            if name == "open":  # the kernel closes what a killed process had open
                os.close(result) if isinstance(result, int) else result.close()
            raise Killed
        return result

    def _tear(self, name, arguments):
        """Let a part of a write reach the file."""
        if name == "write" and len(arguments[1]):
            self._real["write"](arguments[0], arguments[1][: self._random.randrange(len(arguments[1]))])

    def _fail(self, name, arguments, number):
        """A full disk takes a part of what was to be written."""
        if number == errno.ENOSPC:
            self._tear(name, arguments)

    def _remember(self, name, arguments):
        """Keep the content of a file that loses its name."""
        gone = {"replace": arguments[1:2], "rename": arguments[1:2], "unlink": arguments[:1]}.get(name, ())
        present = self._present()
        for path in gone:
            inode = present.get(os.path.basename(str(path)))
            if inode is not None:
                self._last[inode] = self._content(inode)

    def _sync(self, descriptor):
        state = os.fstat(descriptor)
        if stat.S_ISDIR(state.st_mode):
            self._directories = [self._present()]
            kept = set(self._directories[0].values())
            self._last = {inode: data for inode, data in self._last.items() if inode in kept}
            self._synced = {inode: data for inode, data in self._synced.items() if inode in kept}
        else:
            self._synced[state.st_ino] = self._content(state.st_ino)
