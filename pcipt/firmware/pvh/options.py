"""Read from Xen's command line the options that decide what is mapped into a PVH hardware domain. Pure.

Source: Xen xen/drivers/passthrough/iommu.c (parse_dom0_iommu_param), xen/common/kernel.c (parse_boolean).
"""

_NO, _YES = ("0", "no", "off", "false", "disable"), ("1", "yes", "on", "true", "enable")


def maps_reserved(command_line: str) -> bool:
    """Return True if Xen maps reserved memory 1:1 when it boots (dom0-iommu=map-reserved, the default).

    The last mention counts. A value that Xen does not know changes nothing.
    """
    answer = True
    for option in command_line.split():
        name, _, value = option.partition("=")
        for word in value.split(",") if name == "dom0-iommu" else ():
            found = _boolean(word, "map-reserved")
            answer = answer if found is None else found
    return answer


def _boolean(word: str, name: str) -> bool | None:
    """Return the value of a boolean option that is written `name`, `no-name` or `name=value`; else None."""
    if word in (name, f"no-{name}"):
        return word == name
    given, _, value = word.partition("=")
    if given != name or value not in (*_YES, *_NO):
        return None
    return value in _YES
