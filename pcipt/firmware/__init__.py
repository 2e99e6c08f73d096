"""Decode and build what the firmware tells: ACPI tables, the PVH boot ABI, the memory map, reserved memory.

Pure.
"""
