"""The service is killed right after its first comparison, before it writes its files whole."""

import pytest

from pcipt.daemon.store import FileStore
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import decode_machine
from tests.engine.stage import BusStage, S, compare, right, work_off
from tests.xen.devices import device, port

BRIDGE, NIC, COMMAND = "00:1c.0", "02:00.0", 0x04
HERE, THERE = 0xFE20_0000, 0xFE30_0000
RELEASES = [(4, 17, 7), (4, 18, 6), (4, 19, 6), (4, 20, 4), (4, 21, 0), (4, 22, 0), (4, 19, "4-1")]


class Scene(BusStage):
    """A stage with the service's real files."""

    def __init__(self, directory, **more):
        raws = [
            device("00:00.0"),
            port(BRIDGE, 2, 4, window=(0xFE20, 0xFE90), command=0),
            device(NIC, (HERE, 0x4000), parent=BRIDGE, msix=(0, 0x1000, 0x2000)),
        ]
        super().__init__(raws, **more)
        self.directory = str(directory)
        FileStore(self.directory).save_snapshot(snapshot_from_machine("boot", decode_machine(raws)))

    def begin(self):
        """Start the service anew; what was to be read meanwhile nobody has read."""
        self.store = FileStore(self.directory)
        self.engine = self.start()
        self.source.read()
        self.hotplug.read()
        compare(self.engine)

    def unplug(self):
        self.pull(NIC)

    def stop_decoding(self):
        self.write(NIC, COMMAND, 2, 0)

    def move(self):
        self.write(NIC, COMMAND, 2, 0)
        self.write(NIC, 0x10, 4, THERE)
        self.write(NIC, COMMAND, 2, 2)

    def plug_elsewhere(self):
        self.pull(NIC)
        self.plug(device(NIC, (THERE, 0x4000), parent=BRIDGE, command=0))
        self.write(NIC, COMMAND, 2, 2)

    def renumber(self):
        self.write(BRIDGE, 0x18, 4, 0x4_0300)

    def forget(self):
        self.xen.kernel_remove(S(NIC))

    def reset(self):
        self.hardware.reset(S(NIC))
        self.write(NIC, 0x10, 4, HERE)
        self.write(NIC, COMMAND, 2, 2)


EVENTS = [
    Scene.unplug, Scene.stop_decoding, Scene.move, Scene.plug_elsewhere, Scene.renumber, Scene.forget,
    Scene.reset,
]  # fmt: skip


@pytest.mark.parametrize("known", [None, ["00:00.0", BRIDGE]])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("version", RELEASES)
def test_the_next_start_makes_it_right(tmp_path, version, event, known):
    scene = Scene(tmp_path, version=version, known=known)
    scene.begin()
    right(scene)
    event(scene)
    scene.begin()
    scene.time += 60
    work_off(scene.engine)
    compare(scene.engine)
    right(scene)
