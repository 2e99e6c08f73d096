"""A directory tree that answers as the kernel's tracefs does where pcipt asks it; trace_pipe is a FIFO."""

import errno
import os
import shutil

from pcipt.watch.tracefs import Tracefs

SYMBOLS = ("pci_conf1_write", "pci_mmcfg_write")


class FakeTracefs(Tracefs):
    """`refuse` makes a method fail by its errno; what a test wants to see lies in the tree."""

    def __init__(self, path, symbols=SYMBOLS, cpus=2):
        super().__init__(str(path))
        self.symbols, self.cpus, self.busy = symbols, cpus, False
        self.refuse: dict[str, int] = {}
        os.makedirs(path / "instances")
        (path / "kprobe_events").write_text("p:other/probe vfs_read\n")
        self.feeder = -1

    def write(self, name, text, *, append=False):
        self._may(name)
        if name != "kprobe_events":
            super().write(name, text, append=append)
            return
        assert append, "a truncating open removes everybody's probes"
        kept = self.read(name).splitlines()
        if text.startswith("-:"):
            wanted = text[2:].strip()
            if self.enabled():
                raise OSError(errno.EBUSY, "busy")
            kept = [line for line in kept if not line.startswith(f"p:{wanted} ")]
        else:
            probe, symbol, *_ = text.split()
            if symbol not in self.symbols:
                raise OSError(errno.ENOENT, "no such symbol")
            if any(line.startswith(f"{probe} ") for line in kept):
                raise OSError(errno.EEXIST, "probe exists")
            kept.append(text.strip())
        with open(os.path.join(self.path, name), "w", encoding="ascii") as file:
            file.writelines(f"{line}\n" for line in kept)

    def make_instance(self, name):
        self._may("mkdir")
        home = os.path.join(self.path, "instances", name)
        os.makedirs(os.path.join(home, "events", "pcipt"))
        for file in ("events/pcipt/enable", "buffer_size_kb", "buffer_percent", "trace_clock", "tracing_on"):
            with open(os.path.join(home, file), "w", encoding="ascii") as opened:
                opened.write("1" if file == "tracing_on" else "0")
        for cpu in range(self.cpus):
            os.makedirs(os.path.join(home, "per_cpu", f"cpu{cpu}"))
            self.count(cpu, overrun=0)
        os.mkfifo(os.path.join(home, "trace_pipe"))

    def remove_instance(self, name):
        self._may("rmdir")
        if self.busy:
            raise OSError(errno.EBUSY, "busy")
        shutil.rmtree(os.path.join(self.path, "instances", name))

    def open_pipe(self, name):
        opened = super().open_pipe(name)
        self.feeder = os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_NONBLOCK)
        return opened

    def feed(self, text):
        os.write(self.feeder, text.encode())

    def close_feeder(self):
        if self.feeder >= 0:
            os.close(self.feeder)

    def count(self, cpu, *, overrun, dropped=0, commit=0):
        path = os.path.join(self.path, "instances/pcipt/per_cpu", f"cpu{cpu}", "stats")
        with open(path, "w", encoding="ascii") as file:
            file.write(
                f"entries: 3\noverrun: {overrun}\ncommit overrun: {commit}\nbytes: 8\n"
                f"dropped events: {dropped}\n"
            )

    def online(self, cpu, online):
        """Make the counters of a CPU unreadable, or readable again."""
        path = os.path.join(self.path, "instances/pcipt/per_cpu", f"cpu{cpu}", "stats")
        if online:
            self.count(cpu, overrun=0)
        elif os.path.exists(path):
            os.unlink(path)

    def enabled(self):
        name = "instances/pcipt/events/pcipt/enable"
        return self.exists(name) and self.read(name) == "1"

    def _may(self, name):
        if name in self.refuse:
            raise OSError(self.refuse[name], "refused", name)
