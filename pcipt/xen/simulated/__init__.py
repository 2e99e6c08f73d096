"""A simulated Xen with simulated hardware, for tests and replays. No real hypervisor is used."""
