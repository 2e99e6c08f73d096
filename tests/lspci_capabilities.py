"""What `lspci -vvv` prints of capabilities, taken apart, and held against the registers that pcipt decodes.

Every flag (`word+`, `word-`) must be one of ours with the same sign; every other value has a row in VALUES.
What is left of a line must be punctuation: a word that nobody compares is a failure.
"""

import re
import subprocess

from pcipt.pci import ConfigSpace
from pcipt.pci.capabilities import walk_capabilities
from pcipt.pci.capabilities.details import details_of

HEAD = re.compile(r"([0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) .*")
CAPABILITY = re.compile(r"\tCapabilities: \[([0-9a-f]+)(?: v\d+)?\] (.*)")
FLAG = re.compile(r"(?<![^\s,;(])([^\s,;(]*[^\s,;(:+-]):?([+-])(?=[\s,;)]|$)")
TITLED = re.compile(r"([A-Z][\w ]*?):\s*(.*)")
REST = re.compile(r"[\s,;()]*")


def hexadecimal(digits):
    return lambda text: f"0x{int(text, 16):0{digits}x}"


def number(text):
    return str(int(text, 16))


def size(text):
    units = {"MB": 20, "GB": 30, "TB": 40, "PB": 50, "EB": 60}
    return " ".join(str(int(each[:-2]) << units[each[-2:]]) for each in text.split())


def same(text):
    return text.lower() if text == "Unknown" else text


def reserved(text):
    return "unknown" if text == "Reserved" else same(text)


def lanes(text):
    return (
        text.removeprefix("LaneErr at lane: ").replace("LaneErr at lane:", "").strip()
        if text != "0"
        else "none"
    )


def unnamed(text):
    return "unknown" if text.startswith("??") else text


def granularity(text):
    return {"Unimplemented": "unknown", "Unknown": "unknown", "Greater than 254ns": ">254ns"}.get(text, text)


GRANULARITY = r"^(Unimplemented|Unknown|Greater than 254ns|\d+ns)$"
TRIGGERS = ("disabled", "fatal errors", "fatal and nonfatal errors", "unknown")
REASONS = ("uncorrectable error", "ERR_NONFATAL", "ERR_FATAL", "see the extension")
LATENCY = r"(?:<\w+|unlimited)"
SPEED = r"(?:[\d.]+GT/s|[Uu]nknown)"
#  our register -> (pattern in lspci's line, our field's word, how lspci's text becomes ours)
VALUES = {
    "PMCap": [(r"AuxCurrent=(\d+mA)", "AuxCurrent", same)],
    "PMCSR": [
        (r"^(D\d)", "State", lambda t: {"D3": "D3hot"}.get(t, t)),
        (r"DSel=(\d+)", "DSel", same),
        (r"DScale=(\d+)", "DScale", same),
    ],
    "DevCap": [
        (r"MaxPayload (\d+ bytes)", "MaxPayload", same),
        (r"PhantFunc (\d+)", "PhantFunc", same),
        (rf"Latency L0s ({LATENCY})", "Latency L0s", same),
        (rf"(?<=, )L1 ({LATENCY})", "Latency L1", same),
        (r"SlotPowerLimit (>?[\d.e+-]+W)", "SlotPowerLimit", lambda t: "unknown" if t == ">600W" else t),
    ],
    "DevCtl": [
        (r"MaxPayload (\d+ bytes)", "MaxPayload", same),
        (r"MaxReadReq (\d+ bytes)", "MaxReadReq", same),
    ],
    "LnkCap": [
        (r"Port (#\d+)", "Port", same),
        (rf"Speed ({SPEED})", "Speed", same),
        (r"Width (x\d+)", "Width", same),
        (r"ASPM (not supported|L0s L1|L0s|L1)", "ASPM", same),
        (rf"Exit Latency L0s ({LATENCY})", "Exit Latency L0s", same),
        (rf"(?:Exit Latency |(?<=, ))L1 ({LATENCY})", "Exit Latency L1", same),
    ],
    "LnkCtl": [
        (r"ASPM (Disabled|L0s Enabled|L1 Enabled|L0s L1 Enabled);", "ASPM", same),
        (r"RCB (\d+ bytes)", "RCB", same),
    ],
    "LnkSta": [
        (rf"Speed ({SPEED})(?: \((?:downgraded|overdriven)\))?", "Speed", same),
        (r"Width (x\d+)(?: \((?:downgraded|overdriven)\))?", "Width", same),
    ],
    "SltCap": [
        (r"Slot (#\d+)", "Slot", same),
        (r"PowerLimit (>?[\d.e+-]+W)", "PowerLimit", lambda t: "unknown" if t == ">600W" else t),
    ],
    "SltCtl": [
        (r"AttnInd (Unknown|On|Blink|Off)", "AttnInd", same),
        (r"PwrInd (Unknown|On|Blink|Off)", "PwrInd", same),
    ],
    "RootSta": [
        (r"PME ReqID ([0-9a-f]{4})", "PME ReqID", hexadecimal(4)),
        (r"IntMsg (\d+)", "IntMsg", same),
    ],
    "DevCap2": [
        (r"Completion Timeout: (Not Supported|Range A?B?C?D?|Unknown)", "Completion Timeout", same),
        (r"OBFF (Not Supported|Via [\w/#]+)", "OBFF", same),
        (r"MaxEETLPPrefixes (\d)", "MaxEETLPPrefixes", same),
        (
            r"EmergencyPowerReduction (Not Supported|(?:Form Factor )?Dev Specific|Reserved)",
            "EmergencyPowerReduction",
            reserved,
        ),
        (r"LN System CLS (Not Supported|\d+byte cachelines|Reserved)", "LN System CLS", reserved),
    ],
    "DevCtl2": [
        (r"Completion Timeout: ([\d.]+\w+ to [\d.]+\w+|Unknown)", "Completion Timeout", same),
        (r"OBFF (Disabled|Via message [AB]|Via WAKE#)", "OBFF", same),
    ],
    "LnkCap2": [(r"Supported Link Speeds: ([\d.-]+GT/s|Unknown)", "Supported Link Speeds", same)],
    "LnkCtl2": [
        (rf"Target Link Speed: ({SPEED})", "Target Link Speed", same),
        (r"Selectable De-emphasis: (-[\d.]+dB)", "Selectable De-emphasis", same),
        (r"Transmit Margin: (Normal Operating Range|[^,]+half-swing\)|Unknown)", "Transmit Margin", same),
        (
            r"Compliance Preset/De-emphasis: (-?[\d.]+dB de-emphasis, [\d.]+dB preshoot|Unknown)",
            "Compliance Preset/De-emphasis",
            same,
        ),
    ],
    "LnkSta2": [
        (r"Current De-emphasis Level: (-[\d.]+dB)", "Current De-emphasis Level", same),
        (r"CrosslinkRes: (unsupported|Upstream Port|Downstream Port|incomplete)", "CrosslinkRes", same),
        (r"DownstreamComp: ([\w -]+)$", "DownstreamComp", reserved),
    ],
    "LaneErrStat": [(r"^(0|LaneErr at lane:[ \d]*)$", "", lanes)],
    "Address": [
        (r"^([0-9a-f]+)", "", lambda t: f"0x{t}"),
        (r"Data: ([0-9a-f]{4})", ("Data", ""), hexadecimal(4)),
    ],
    "Masking": [
        (r"^([0-9a-f]{8})", "", hexadecimal(8)),
        (r"Pending: ([0-9a-f]{8})", ("Pending", ""), hexadecimal(8)),
    ],
    "Vector table": [(r"BAR=(\d)", "BAR", same), (r"offset=([0-9a-f]{8})", "offset", hexadecimal(8))],
    "PBA": [(r"BAR=(\d)", "BAR", same), (r"offset=([0-9a-f]{8})", "offset", hexadecimal(8))],
    "ARICap": [(r"Next Function: (\d+)", "Next Function", same)],
    "ARICtl": [(r"Function Group: (\d+)", "Function Group", same)],
    "ATSCap": [(r"Invalidate Queue Depth: ([0-9a-f]{2})", "Invalidate Queue Depth", number)],
    "ATSCtl": [(r"Smallest Translation Unit: ([0-9a-f]{2})", "Smallest Translation Unit", number)],
    "Page Request Capacity": [
        (r"^([0-9a-f]{8})", "", number),
        (r"Page Request Allocation: ([0-9a-f]{8})", ("Page Request Allocation", ""), number),
    ],
    "PASIDCap": [(r"Max PASID Width: ([0-9a-f]{2})", "Max PASID Width", number)],
    "IOVCap": [(r"Interrupt Message Number: ([0-9a-f]+)", "Interrupt Message Number", number)],
    "Initial VFs": [
        (r"^(\d+)", "", same),
        (r"Total VFs: (\d+)", ("Total VFs", ""), same),
        (r"Number of VFs: (\d+)", ("Number of VFs", ""), same),
        (r"Function Dependency Link: ([0-9a-f]{2})", ("Function Dependency Link", ""), hexadecimal(2)),
    ],
    "VF offset": [
        (r"^(\d+)", "", same),
        (r"stride: (\d+)", ("VF stride", ""), same),
        (r"Device ID: ([0-9a-f]{4})", ("VF Device ID", ""), hexadecimal(4)),
    ],
    "Supported Page Size": [
        (r"^([0-9a-f]{8})", "", hexadecimal(8)),
        (r"System Page Size: ([0-9a-f]{8})", ("System Page Size", ""), hexadecimal(8)),
    ],
    **{
        f"Region {index}": [
            (r"Memory at ([0-9a-f]+)", "at", lambda t: f"0x{t}"),
            (r"(\d\d)-bit", "width", lambda t: f"{t} bits"),
            (r"((?:non-)?prefetchable)", "Prefetchable", lambda t: "-" if t.startswith("non") else "+"),
        ]
        for index in range(6)
    },
    "VF Migration": [
        (r"offset: ([0-9a-f]{8})", "offset", hexadecimal(8)),
        (r"BIR: (\d)", "BIR", same),
    ],
    "L1SubCap": [
        (r"PortCommonModeRestoreTime=(\d+us)", "PortCommonModeRestoreTime", same),
        (r"PortTPowerOnTime=(\d+us|<error>)", "PortTPowerOnTime", lambda t: t.replace("<error>", "unknown")),
    ],
    "L1SubCtl1": [
        (r"T_CommonMode=(\d+us)", "T_CommonMode", same),
        (r"LTR1.2_Threshold=(\d+ns|<error>)", "LTR1.2_Threshold", lambda t: t.replace("<error>", "unknown")),
    ],
    "L1SubCtl2": [(r"T_PwrOn=(\d+us|<error>)", "T_PwrOn", lambda t: t.replace("<error>", "unknown"))],
    "Max snoop latency": [(r"^(\d+ns)", "", same)],
    "Max no snoop latency": [(r"^(\d+ns)", "", same)],
    "AERCap": [(r"First Error Pointer: ([0-9a-f]{2})", "First Error Pointer", hexadecimal(2))],
    "HeaderLog": [(r"^([0-9a-f ]{35})", None, None)],
    "ErrorSrc": [
        (r"ERR_COR: ([0-9a-f]{4})", "ERR_COR", hexadecimal(4)),
        (r"ERR_FATAL/NONFATAL: ([0-9a-f]{4})", "ERR_FATAL/NONFATAL", hexadecimal(4)),
    ],
    "McastCap": [
        (r"MaxGroups (\d+)", "MaxGroups", same),
        (r"WindowSz \d+ \((\d+ bytes)\)", "WindowSz", same),
    ],
    "McastCtl": [(r"NumGroups (\d+)", "NumGroups", same)],
    "McastBAR": [
        (r"IndexPos (\d+)", "IndexPos", same),
        (r"BaseAddr ([0-9a-f]{16})", "BaseAddr", hexadecimal(16)),
    ],
    "McastReceiveVec": [(r"^([0-9a-f]{16})", "", hexadecimal(16))],
    "McastBlockAllVec": [(r"^([0-9a-f]{16})", "", hexadecimal(16))],
    "McastBlockUntransVec": [(r"^([0-9a-f]{16})", "", hexadecimal(16))],
    "McastOverlayBAR": [
        (r"OverlaySize (\d+) \((?:disabled|-?\d+ bytes)\)", "OverlaySize", same),
        (r"BaseAddr ([0-9a-f]{16})", "BaseAddr", hexadecimal(16)),
    ],
    "DpcCap": [(r"INT Msg (#\d+)", "INT Msg", same), (r"RP PIO Log (\d+)", "RP PIO Log", same)],
    "DpcCtl": [
        (r"Trigger:(\d)", "Trigger", lambda t: TRIGGERS[int(t)])
    ],
    "DpcSta": [
        (r"Reason:0(\d)", "Reason", lambda t: REASONS[int(t)]),
        (r"TriggerExt:([0-9a-f]{2})", "TriggerExt", hexadecimal(2)),
        (r"RP PIO ErrPtr:([0-9a-f]{2})", "RP PIO ErrPtr", hexadecimal(2)),
    ],
    **{
        f"Range{number}": [
            (r"^([0-9a-f]{16})-[0-9a-f]{16}", "base", hexadecimal(16)),
            (r"Type=([\w-]+)", "Type", same),
            (r"Class=(\w+)", "Class", same),
            (r"interleave=(\d+)", "interleave", same),
            (r"timeout=(\d+s)", "timeout", same),
        ]
        for number in (1, 2)
    },
    **{
        f"Block{number}": [
            (r"BIR: bar(\d)", "BIR", same),
            (r"ID: ([\w -]+)", "ID", same),
            (r"offset: ([0-9a-f]{16})", "offset", hexadecimal(16)),
        ]
        for number in range(1, 9)
    },
    "Source": [(r"^([0-9a-f]{4})", "", hexadecimal(4))],
    "CXLCap": [(r"HDMCount (\d)", "HDMCount", same)],
    "CXLCtl": [
        (r"Cache SF Cov (\d+)", "Cache SF Cov", same),
        (r"Cache SF Gran (\d+)", "Cache SF Gran", same),
    ],
    "Mapping Address Base": [(r"^([0-9a-f]{16})", "", hexadecimal(16))],
    "DOECap": [(r"Interrupt Message Number ([0-9a-f]{3})", "Interrupt Message Number", number)],
    "Command": [(r"RBC=(\d+)", "RBC", same), (r"OST=(\d+)", "OST", same)],
    "Status": [
        (r"^Dev=(\S+)", "Dev", same),
        (r"DC=(\w+)", "DC", same),
        (r"DMMRBC=(\d+)", "DMMRBC", same),
        (r"DMOST=(\d+)", "DMOST", same),
        (r"DMCRS=(\d+)", "DMCRS", same),
    ],
    "Place": [
        (r"BAR=(\d)", "BAR", same),
        (r"offset=([0-9a-f]{8})", "offset", hexadecimal(8)),
        (r"size=([0-9a-f]{8})", "size", hexadecimal(8)),
        (r"multiplier=([0-9a-f]{8})", ("Notify multiplier", ""), hexadecimal(8)),
    ],
    "Cache Size": [(r"^(unknown)", "", same), (r"^([0-9a-f]{8})", "", number)],
    "Caps": [
        (r"LPEVC=(\d+)", "LPEVC", same),
        (r"RefClk=(\S+)", "RefClk", unnamed),
        (r"PATEntryBits=(\d+)", "PATEntryBits", same),
    ],
    "Ctrl": [(r"ArbSelect=(\S+)", "ArbSelect", unnamed)],
    **{
        f"VC{number}": [
            (r"PATOffset=([0-9a-f]{2})", "PATOffset", hexadecimal(2)),
            (r"MaxTimeSlots=(\d+)", "MaxTimeSlots", same),
            (r"ID=(\d)", "ID", same),
            (r"ArbSelect=(\S+)", "ArbSelect", unnamed),
            (r"TC/VC=([0-9a-f]{2})", "TC/VC", hexadecimal(2)),
        ]
        for number in range(8)
    },
    "Desc": [
        (r"PortNumber=([0-9a-f]{2})", "PortNumber", hexadecimal(2)),
        (r"ComponentID=([0-9a-f]{2})", "ComponentID", hexadecimal(2)),
        (r"EltType=(\S+)", "EltType", unnamed),
    ],
    **{
        f"Link{number}": [
            (r"TargetPort=([0-9a-f]{2})", "TargetPort", hexadecimal(2)),
            (r"TargetComponent=([0-9a-f]{2})", "TargetComponent", hexadecimal(2)),
            (r"LinkType=(\w+)", "LinkType", same),
            (r"Addr:\s+([0-9a-f]{16})", "Addr", hexadecimal(16)),
            (r"Addr:\s+(\S+)\s", "Function", same),
            (r"CfgSpace=([0-9a-f]{16})", "Addr", hexadecimal(16)),
        ]
        for number in range(8)
    },
    "PTMCap": [(GRANULARITY, "ClockGranularity", granularity)],
    "PTMControl": [(GRANULARITY, "EffectiveGranularity", granularity)],
    "FBModTS": [(r"Received FB Data: ([0-9a-f]{6})", "", hexadecimal(6))],
}  # fmt: skip
#  capability (standard or extended, id) -> a pattern of the line that names it: groups are (register, word)
HEADLINES = {
    (False, 0x01): (r"Power Management version (\d)", [("PMCap", "Version", same)]),
    (False, 0x05): (
        r"MSI: Enable([+-]) Count=(\d+)/(\d+) Maskable([+-]) 64bit([+-])",
        [("MSI", "Enable", same), ("MSI", "Vectors", same), ("MSI", "possible", same),
         ("MSI", "Maskable", same), ("MSI", "64bit", same)],
    ),
    (False, 0x08): (
        r"HyperTransport: MSI Mapping Enable([+-]) Fixed([+-])",
        [("MSI Mapping", "Enable", same), ("MSI Mapping", "Fixed", same)],
    ),
    (False, 0x0D): (
        r"Subsystem: ([0-9a-f]{4}):([0-9a-f]{4})",
        [("Subsystem", "Vendor", hexadecimal(4)), ("Subsystem", "Device", hexadecimal(4))],
    ),
    (False, 0x10): (
        r"Express \(v(\d+)\) .*?(?: \(Slot([+-])\))?, MSI ([0-9a-f]{2})",
        [("Express", "Version", same), ("Express", "Slot", same), ("Express", "MSI", number)],
    ),
    (False, 0x11): (
        r"MSI-X: Enable([+-]) Count=(\d+) Masked([+-])",
        [("MSI-X", "Enable", same), ("MSI-X", "Count", same), ("MSI-X", "Masked", same)],
    ),
    (True, 0x03): (r"Device Serial Number ([0-9a-f-]{23})", [("Serial", "", same)]),
}  # fmt: skip
#  chapters of lspci that are not compared, and why
NOT_COMPARED = {
    (False, 0x03): "never read",
}


def run(path):
    """Give lspci's lines: function -> offset of a capability -> [headline, (title, text) ...]."""
    command = ["lspci", "-F", str(path), "-Dn", "-vvv"]
    printed = subprocess.run(command, capture_output=True, check=True, text=True).stdout
    #  lspci 3.9 forgets a line's end
    printed = re.sub(r"(?<=\S)\t\tMcastCtl", "\n\t\tMcastCtl", printed)
    found = {}
    for block in printed.split("\n\n"):
        lines = block.splitlines()
        if lines and (head := HEAD.fullmatch(lines[0])):
            found[head[1]] = capabilities(lines[1:])
    return found


def capabilities(lines):
    """Join continued lines: what has three tabs, or no title, belongs to the line above."""
    found, held = {}, None
    for line in lines:
        if matched := CAPABILITY.match(line):
            held = found.setdefault(int(matched[1], 16), [matched[2]])
        elif not line.startswith("\t\t"):
            held = None
        elif held is not None and not line.startswith("\t\t\t") and (titled := TITLED.match(line[2:])):
            held.append((titled[1], titled[2]))
        elif held is not None and len(held) > 1 and line.startswith("\t\t\t"):
            title, text = held[-1]
            if sub := re.match(r"\t\t\t(Changed|Control): (.*)", line):
                held.append((title, f"{sub[1]}: {sub[2]}"))
            else:
                held[-1] = (title, f"{text} {line.strip()}")
        elif held is not None:
            held.append(("", line.strip()))
    return found


def ours_of(data):
    """Give our registers: offset -> (whether extended, id, title -> word -> text)."""
    config = ConfigSpace(data)
    found = {}
    for detail in details_of(config, walk_capabilities(config)[0]):
        registers = {}
        for each in detail.registers or ():
            words = registers.setdefault(each.register.title, {})
            for field, value in each.values or ():
                words[field.word] = field.text(value).removeprefix(field.word).strip()
        found[detail.capability.offset] = (detail.capability.extended, detail.capability.id, registers)
    return found


def compare(theirs, data):
    """Assert that each line of lspci about a capability has its counterpart; give the titles compared."""
    compared = []
    ours = ours_of(data)
    for offset, (headline, *lines) in theirs.items():
        extended, identity, registers = ours[offset]
        key = (extended, identity)
        if key in HEADLINES:
            pattern, places = HEADLINES[key]
            matched = re.fullmatch(pattern, headline)
            assert matched or key == (False, 0x08), headline
            for text, (register, word, convert) in zip(
                matched.groups() if matched else (), places, strict=False
            ):
                if text is not None:
                    assert registers[register][word] == convert(text), (headline, register, word)
            compared.append(headline.split()[0])
        if key in NOT_COMPARED:
            continue
        if key in {(True, 0x15), (True, 0x24)}:
            compared += resizable(lines, data, offset)
            continue
        for title, text in lines:
            compared.append(line(title, text, registers, key))
    return compared


def resizable(lines, data, offset):
    """Compare Resizable BARs, of which several registers have one title."""
    config = ConfigSpace(data)
    detail = next(
        each for each in details_of(config, walk_capabilities(config)[0]) if each.capability.offset == offset
    )
    mine = [[field.text(value) for field, value in each.values] for each in detail.registers]
    if lines and "error in resizable" in lines[0][1]:
        return []
    shown = []
    for title, text in lines:
        matched = re.fullmatch(r"current size: (\S+)(?:, supported: ([\w ]+))?", text)
        shown.append([title, f"size {size(matched[1])}", f"supported {size(matched[2] or '') or 'none'}"])
    assert mine == shown
    return ["Resizable"] * len(shown)


#  capability -> lspci's title -> ours; None: of this line nothing is compared, for it decides nothing
TITLES = {
    (False, 0x01): {"Flags": "PMCap", "Status": "PMCSR"},
    (False, 0x09): {"": "Place"},
    (True, 0x1F): {"PTMClockGranularity": "PTMCap", "PTMEffectiveGranularity": "PTMControl"},
    (True, 0x23): {
        "GPF Phase 1 Timeout": None,
        "GPF Phase 2 Timeout": None,
        "GPF Phase 2 Duration": None,
        "GPF Phase 2 Power": None,
    },
}
CHANNELS = [(r"(Caps|Arb|Ctrl|Status):|(Port|VC) Arbitration Table( \[\w+\])? <\?>", lambda _: "")]
#  capability -> what is changed in lspci's text so that its flags are ours
CHANGES = {
    (False, 0x01): [
        (r"PME\(([^)]*)\)", lambda m: re.sub(r"(D\w+?)([+-]),?", r"PME_\1\2 ", m[1])),
        (r"B3([+-])", lambda m: "B2-" if m[1] == "+" else "B2+"),
    ],
    (False, 0x10): [
        (r"Changed: (.*)", lambda m: re.sub(r"(\w+)([+-])", r"\1Changed\2", m[1])),
        (r"^(Control|Enable|Status): |AtomicOpsC(ap|tl):", lambda _: ""),
    ],
    (True, 0x23): [
        (r"Mem HW Init", lambda _: "MemHWInit"),
        (r"Cache Clean", lambda _: "CacheClean"),
        (r"^Cache Size Not Reported$", lambda _: "unknown"),
    ],
    (True, 0x02): CHANNELS,
    (True, 0x09): CHANNELS,
    (True, 0x05): [(r"Desc:", lambda _: "")],
    (True, 0x2E): [(r"Error[+-]", lambda _: "")],  # lspci 3.9 looks at bits 0 and 1; the error is bit 2
}  # fmt: skip


def line(title, text, registers, key):
    """Compare one line; give the title of our register."""
    if key == (True, 0x17):
        return hints(text or title, registers)
    title = TITLES.get(key, {}).get(title, title)
    if title == "" and text == "Cache Size Not Reported":
        title = "Cache Size"
    for pattern, change in CHANGES.get(key, ()):
        text = re.sub(pattern, change, text)
    links = key == (False, 0x08) and title not in registers  # of HyperTransport; only MSI Mapping is decoded
    if title is None or links or not text.strip():
        return ""  # lspci has nothing to say, or nothing that decides
    assert title in registers, (title, text, sorted(registers))
    for pattern, place, convert in VALUES.get(title, ()):
        matched = re.search(pattern, text)
        if matched is None:
            continue
        text = text[: matched.start()] + " " + text[matched.end() :]
        if place is None:
            assert registers[title][""] == f"0x{matched[1].split()[-1]}"
            continue
        register, word = place if isinstance(place, tuple) else (title, place)
        assert registers[register][word] == convert(matched[1]), (
            title,
            word,
            matched[1],
            registers[register],
        )
    for word, sign in FLAG.findall(text):
        assert registers[title].get(word) == sign, (title, word, sign, registers[title])
    rest = FLAG.sub("", text)
    assert REST.fullmatch(rest), (title, rest)
    return title


def hints(text, registers):
    """TPH is told in sentences."""
    found = {
        "Interrupt vector mode supported": ("IntVec", "+"),
        "Device specific mode supported": ("DevSpec", "+"),
        "Extended requester support": ("ExtReq", "+"),
        "No steering table available": ("Steering table", "none"),
        "Steering table in TPH capability structure": ("Steering table", "in this structure"),
        "Steering table in MSI-X table": ("Steering table", "in the MSI-X table"),
        "Reserved steering table location": ("Steering table", "unknown"),
    }
    word, expected = found[text]
    assert registers["TPHCap"][word] == expected
    return "TPHCap"
