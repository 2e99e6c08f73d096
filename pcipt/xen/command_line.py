"""Read switches and values from Xen's command line. Pure.

Source: Xen common/kernel.c (parse_params, parse_boolean, parse_bool), common/domain.c (parse_dom0_param),
        drivers/passthrough/iommu.c (parse_dom0_iommu_param), arch/x86/setup.c (what follows "--" is dom0's
        command line).
"""

import itertools

_YES = frozenset({"yes", "on", "true", "enable", "1"})
NO = frozenset({"no", "off", "false", "disable", "0"})


def whole_switch_in(line: str, option: str) -> tuple[bool, str] | None:
    """Return the value of an option that is a switch itself, such as iommu=off, and the word that says it.

    Return None if the line does not have it. "no-OPTION" is off; the option without a value says nothing. If
    it is there several times, the last one counts. Of a list of words, those that are no switch are left out.
    Source: Xen common/kernel.c (parse_params), drivers/passthrough/iommu.c (parse_iommu_param).
    """
    found = None
    for word in words_in(line):
        key, equals, values = word.partition("=")
        if word == f"no-{option}":
            found = False, word
        if key != option or not equals:
            continue
        for value in values.split(","):
            if value in _YES or value in NO:
                found = value in _YES, f"{option}={value}"
    return found


def flag_in(line: str, option: str) -> bool:
    """Return the value of an option that is off unless it is given, such as console_to_ring (`truth_in`)."""
    return truth_in(line, option) or False


def truth_in(line: str, option: str) -> bool | None:
    """Return the value of an option that is on or off, such as msi; None if the line does not have it.

    The option alone is on, "no-OPTION" is off, OPTION=VALUE is what the value says; a value that Xen cannot
    read changes nothing. If the option is there several times, the last one counts.
    """
    found = None
    for word in words_in(line):
        key, _, value = word.partition("=")
        asserted = key != f"no-{option}"
        if asserted and key != option:
            continue
        if not value or value in _YES:
            found = asserted
        elif value in NO:
            found = not asserted
    return found


def value_in(line: str, option: str) -> str | None:
    """Return the text after "OPTION=", None if the line does not have it. The last one counts."""
    return next(iter(reversed(values_in(line, option))), None)


def values_in(line: str, option: str) -> list[str]:
    """Return the text after each "OPTION=", in the order of the line."""
    pairs = (word.partition("=") for word in words_in(line))
    return [value for key, equals, value in pairs if equals and key == option]


def words_in(line: str) -> list[str]:
    """Return the words of Xen's command line; what follows "--" is dom0's."""
    return list(itertools.takewhile(lambda word: word != "--", line.split()))


def switch_in(line: str, option: str, *names: str) -> bool | None:
    """Return the value of a switch of an option that has a list of words, or None if the line has none.

    For example, "dom0=pvh,no-pf-fixup" switches "pf-fixup" of "dom0" off. `names` are all names of the one
    switch. If the switch is there several times, the last one counts. A word that Xen cannot read is left
    out, as Xen does.
    """
    found = None
    for word in words_in(line):
        key, equals, values = word.partition("=")
        if key != option or not equals:
            continue
        for value, name in itertools.product(values.split(","), names):
            said = _switch(value, name)
            found = found if said is None else said
    return found


def _switch(word: str, name: str) -> bool | None:
    """Return the value of the switch `name` in one word of a list, None if the word is not that switch."""
    if word in (name, f"no-{name}"):
        return word == name
    key, _, value = word.partition("=")
    if key != name:
        return None
    return True if value in _YES else False if value in NO else None
