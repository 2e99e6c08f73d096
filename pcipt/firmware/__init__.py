"""Decode and build the firmware's tables: ACPI tables, the PVH boot ABI, the memory map, reserved memory.

The code is pure: it opens no file and reads no clock.
"""
