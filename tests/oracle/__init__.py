"""Xen's own vPCI, built in user space from a git directory of Xen, beside the simulated: `make oracle`."""
