"""Xen's own parsers of DMAR and IVRS in user space, beside `pcipt.firmware.acceptance`."""
