"""Boot a real Xen with a Debian dom0 in QEMU and let pytest on this host drive it.

image    the dom0 image, built from Debian packages and cached outside the repository
prepared what is made of this checkout: package, disks;  install  as a user installs it
payload  this checkout and the agent, as the machine's second disk
hardware the emulated machine, one table
agent    runs in dom0: executes what the host asks for
channel  the host's end of the wire to the agent;  qmp  the wire to QEMU
machine  Dom0: one booted machine, what tests use
witness  what Xen, the memory and QEMU say of dom0's map;  steps  what pcipt says of itself
run      all machines of `make lab`, two at a time or more
"""
