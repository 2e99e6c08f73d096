"""Hold facts that Linux knows about a function besides its registers and that matter for passthrough."""

import attrs


@attrs.frozen
class LinuxFacts:
    """Reset methods, IOMMU group and boot display of a function; None is unknown.

    `reset_methods` is empty if Linux has no way to reset the function. `iommu_group` is None under Xen,
    because Linux has no IOMMU groups there. `boot_vga` is True if the firmware used this function as the
    display at boot.
    """

    reset_methods: tuple[str, ...] | None = None
    iommu_group: int | None = None
    boot_vga: bool | None = None
