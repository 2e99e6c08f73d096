"""What Linux tells of a function beside its registers, as far as passthrough asks for it; None is unknown."""

import attrs


@attrs.frozen
class LinuxFacts:
    """`reset_methods` is empty where Linux knows none; on Xen there are no IOMMU groups."""

    reset_methods: tuple[str, ...] | None = None
    iommu_group: int | None = None
    boot_vga: bool | None = None
