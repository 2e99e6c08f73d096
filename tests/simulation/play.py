"""What happens in a simulation: each step is drawn from a table by its weight.

A generator of a step yields how many seconds pass; KILL and STOP end the daemon, START begins it again.
"""

import errno
import signal

from pcipt.daemon.control.protocol import METHODS
from pcipt.pci import parse_sbdf
from pcipt.xen.outcome import Op
from tests.engine.test_laws import CHOICES, ENDPOINTS
from tests.engine.test_remap_machine import (
    ANSWERS,
    APIC,
    BRIDGES,
    ERRNOS,
    HOSTILE,
    PHYSFN,
    SLOTS,
    UNTRAPPED,
)
from tests.simulation.peers import JUNK
from tests.xen.versions import VERSIONS

KILL, STOP, START = "kill", "stop", "start"
BOOT = 60  # steps of one boot, on the average
IOMMUS = ("vt-d", "vt-d", "amd", "amd-few")
DISK_ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
MODES = ("", 'mode = "observe"\n', "[actions]\nadd-device = false\n", 'mode = "nonsense"\n', "[[[\n")
FUNCTIONS = [*ENDPOINTS, *SLOTS, PHYSFN, *BRIDGES, parse_sbdf("00:1f.7")]


class Play:
    def __init__(self, simulation):
        self.simulation = simulation

    @property
    def machine_now(self):
        return self.simulation.machine

    def machine(self, random):
        """Draw a machine, as the laws do."""
        return {
            "dom0": random.choice(["pvh", "pvh", "pv"]),
            "version": random.choice(VERSIONS),
            "unknown": set(random.sample(ENDPOINTS, random.randrange(3))),
            "bound": set(random.sample(ENDPOINTS, random.randrange(4))),
            "iommu": random.choice(IOMMUS),
            "build": random.random() < 0.5,
        }

    def life(self, boot):
        """Play the steps of one boot, and let everything come to rest at its end."""
        simulation = self.simulation
        length = simulation.random(f"length {boot}").randrange(5, 2 * BOOT)
        names, weights = zip(*((name, weight) for name, (weight, _) in STEPS.items()), strict=True)
        yield 1.0
        for _ in range(length):
            if simulation.step >= simulation.steps:
                break
            simulation.step += 1
            if simulation.only is not None and simulation.step not in simulation.only:
                continue
            random = simulation.random(simulation.step)
            name = random.choices(names, weights)[0]
            simulation.tell(f"{simulation.step}: {name}")
            yield from STEPS[name][1](self, random)
            simulation.audit.always()
        yield from self.settle(None)

    # What happens to the machine.

    def event(self, random):
        """Let one to three things happen at once, as in a batch of the laws."""
        for _ in range(random.randrange(1, 4)):
            self.happen(random)
        yield random.choice([0.0, 0.0, 0.05, 0.3, 2.0])

    def happen(self, random):
        what = random.choice(list(CHOICES))
        functions, numbers = CHOICES[what]
        event = (what, random.choice(functions), random.choice(numbers))
        if what == "take back" and self.machine_now.keeps_silent():
            return
        self.simulation.tell(f"  {event[0]} {event[1]} {event[2]}")
        self.machine_now.happen(event)

    def yank(self, random):
        """Take a function out; Linux notices it a while later."""
        function = random.choice([*ENDPOINTS, *SLOTS, PHYSFN])
        self.simulation.tell(f"  {function}")
        machine = self.machine_now
        machine.unseen |= machine.pages_seen_by_nobody(function)
        machine.pull(function)
        yield random.choice([0.0, 0.2, 3.0, 40.0])
        machine.drop()
        yield random.choice([0.0, 1.0])

    def astray(self, random):
        """Move a BAR that vPCI does not trap to where none may be, with decode on; move it back later."""
        machine, bar = self.machine_now, 0xC002_0000
        machine.move_bar(UNTRAPPED, 0, random.choice([*HOSTILE, APIC, 0xFEC0_0000, 0]), politely=False)
        yield random.choice([0.0, 0.2, 5.0])
        machine.move_bar(UNTRAPPED, 0, bar, politely=False)
        yield 0.1

    def scribble(self, random):
        """Write anything to the header of a function that vPCI does not trap."""
        machine, size = self.machine_now, random.choice([1, 2, 4])
        offset = random.randrange(4, 0x40)
        before = machine.hardware.config(UNTRAPPED)
        machine.write(UNTRAPPED, offset, size, random.getrandbits(8 * size))
        yield random.choice([0.0, 0.2, 5.0])
        if before is not None:
            for at in (*range(0x10, 0x40, 4), 4):
                machine.write(UNTRAPPED, at, 4, int.from_bytes(before[at : at + 4], "little"))
        yield 0.1

    def wait(self, random):
        yield random.choice([0.01, 0.1, 1.0, 6.0, 40.0])

    def wait_long(self, random):
        yield random.choice([400.0, 4000.0])

    def fail_call(self, random):
        op, number = random.choice(list(Op)), random.choice(ERRNOS)
        if number not in ANSWERS.get(op, ()):
            self.machine_now.xen.fail(
                op, number, call=random.randrange(1, 4), pages=random.randrange(4),
                performed=random.random() < 0.5,
            )  # fmt: skip
        yield 0.0

    def lose(self, random):
        """Lose what the kernel has to say: messages of hot-plug, or records of writes."""
        self.happen(random)
        self.simulation.audit.blurred = True
        if random.random() < 0.5:
            self.machine_now.lose_messages()
        else:
            self.machine_now.lose_writes()
        yield 0.1

    def forge(self, random):
        """Send messages that the kernel did not send, or that contradict themselves."""
        machine = self.machine_now
        for data, sender in (
            (b"add@/devices/x\0ACTION=add\0SUBSYSTEM=pci\0SEQNUM=5\0", {"port": 77}),
            (b"", {"uid": 1000}), (b"\xff" * 300, {"pid": 9}),
        ):  # fmt: skip
            if random.random() < 0.7:
                machine.forge(data, **sender)
        yield 0.0

    # The process.

    def kill(self, random):
        yield KILL
        yield from self._while_down(random)

    def stop(self, random):
        yield STOP
        yield from self._while_down(random)

    def _while_down(self, random):
        for _ in range(random.choice([0, 0, 1, 2])):
            self.happen(random)
            self.simulation.audit.blurred = True
            yield random.choice([0.0, 10.0])
        yield START

    def kill_at_a_call(self, random):
        self.machine_now.xen.die_at = self.machine_now.xen.changed + random.randrange(1, 4)
        yield from self.event(random)

    def kill_at_a_write(self, random):
        disk = self.simulation.disk
        disk.die_at, disk.late = disk.changes + random.randrange(1, 8), random.random() < 0.5
        yield from self.event(random)

    def disk(self, random):
        self.simulation.disk.refuse[random.choice(DISK_ERRORS)] = random.choice([1, 2, 5, 50])
        yield from self.event(random)

    def reload(self, random):
        self.simulation.configure(random.choice(MODES))
        signal.raise_signal(signal.SIGHUP)
        yield 0.1
        yield from self.event(random)

    # Clients.

    def ask(self, random):
        client = self.simulation.client()
        name = random.choice(list(METHODS))
        parameters = {
            key: str(random.choice(FUNCTIONS)) if kind is str else random.random() < 0.5
            for key, kind in METHODS[name].parameters.items()
        }
        client.ask(name, parameters, more=METHODS[name].stream)
        yield random.choice([0.0, 0.0, 1.0])
        told = client.read()
        self.simulation.tell(f"  {name}: {sorted(told[0]) if told else 'no answer'}")
        client.close()
        if name in {"Release", "Reclaim"}:
            self.simulation.audit.blurred = True

    def junk(self, random):
        client = self.simulation.client()
        client.send(random.choice(JUNK))
        yield random.choice([0.0, 0.5, 12.0])
        client.close()

    # Looks.

    def calm(self, _random):
        """Let time pass until nothing is due; then the status must not be better than the truth."""
        yield 90.0
        yield from self.simulation.audit.honest()

    def settle(self, _random):
        """End all that fails, let everything be compared, and hold all invariants."""
        simulation = self.simulation
        simulation.machine.xen.heal()
        simulation.machine.xen.die_at = None
        simulation.disk.heal()
        simulation.configure()
        signal.raise_signal(signal.SIGHUP)
        simulation.machine.drop()
        for _ in range(3):
            client = simulation.client()
            client.ask("Resync")
            yield 90.0
            client.close()
        yield from simulation.audit.settled()


#  step: its weight, and what it does
STEPS = {
    "event": (20, Play.event),
    "yank": (2, Play.yank),
    "astray": (2, Play.astray),
    "scribble": (2, Play.scribble),
    "wait": (8, Play.wait),
    "wait long": (1, Play.wait_long),
    "fail a call": (3, Play.fail_call),
    "lose": (1, Play.lose),
    "forge": (1, Play.forge),
    "kill": (1, Play.kill),
    "stop": (1, Play.stop),
    "kill at a call": (1, Play.kill_at_a_call),
    "kill at a write": (1, Play.kill_at_a_write),
    "disk": (1, Play.disk),
    "reload": (1, Play.reload),
    "ask": (4, Play.ask),
    "junk": (1, Play.junk),
    "calm": (4, Play.calm),
    "settle": (1, Play.settle),
}
