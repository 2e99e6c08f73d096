"""A daemon on a made-up machine whose configuration writes come through a FIFO: run as a program by tests.

    python -m tests.daemon.live_stage DIR [silent]

Each line of DIR/writes is [sbdf, offset, size, value]; the made-up hardware obeys it unless "silent" is
given, then it keeps its registers as they are. A line "lost" is a gap in the records.
"""

import json
import os
import sys

import attrs

from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.replay.recording import RecordedHotplug
from pcipt.daemon.settings import Settings
from pcipt.daemon.telling.log import start_logging
from pcipt.daemon.watcher import Watch
from pcipt.pci import parse_sbdf
from pcipt.pci.write import ConfigWrite, Lost, Writer
from tests.engine.stage import Stage
from tests.machines import bridge, function

SIZE = 0x20000
MEMORY = 0x20_0200


class FifoSource:
    """A write source fed by the test."""

    def __init__(self, path, host, *, obeys):
        self._host = host
        self._obeys = obeys
        self._fifo = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._rest = b""

    def fileno(self):
        return self._fifo

    def read(self):
        *lines, self._rest = (self._rest + os.read(self._fifo, 65536)).split(b"\n")
        return [self._event(line) for line in lines]

    def _event(self, line):
        if line == b"lost":
            return Lost(3)
        address, offset, size, value = json.loads(line)
        sbdf = parse_sbdf(address)
        raw = self._host.raws.get(sbdf)
        if raw is not None and self._obeys:
            config = raw.config[:offset] + value.to_bytes(size, "little") + raw.config[offset + size :]
            self._host.raws[sbdf] = attrs.evolve(raw, config=config)
        return ConfigWrite(sbdf, offset, size, value, who=Writer("setpci", 42))

    def overrun(self):
        return None

    def blind(self):
        return None

    def close(self):
        os.close(self._fifo)


def main():
    directory, obeys = sys.argv[1], sys.argv[2:] != ["silent"]
    nic = function(
        "01:00.0", parent="00:1c.0", command=2, bars=(0xFE00_0000,), resources=[(0xFE00_0000, SIZE, MEMORY)]
    )
    stage = Stage([function("00:00.0"), bridge("00:1c.0", 1, 4), nic])
    watch = Watch(FifoSource(f"{directory}/writes", stage.host, obeys=obeys), "fifo", obeys=True)
    options = Options(f"{directory}/control", f"{directory}/state", f"{directory}/none.toml", False)
    os.makedirs(options.state)
    Daemon(stage.host, stage.xen, RecordedHotplug(), options, Settings(), start_logging(), watch).run()


if __name__ == "__main__":
    main()
