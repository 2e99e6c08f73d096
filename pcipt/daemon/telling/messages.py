"""The kinds of journal messages: each has one MESSAGE_ID, which never changes.

systemd/pcipt.catalog has an entry for each; `journalctl -x` shows it. Make a new id with `systemd-id128 new`,
and never use one for two kinds.
"""

from collections.abc import Mapping

MESSAGE_IDS: Mapping[str, str] = {
    "ready": "3345f03b971c496ea12e771793c30fb2",
    "stopping": "91a823ffe6f4460e8dff666357e8104d",
    "settings": "e661c0bbbe6d4108a070c8cfa1bc7c22",
    "change": "59898e940d8442f19cef715b4f518c6e",
    "action": "a141f9debeab498ca00ce983f6dc6fd9",
    "finding": "66060b346b50428b8380dc38ffe340e4",
    "finding-gone": "bde2678a84ca432c9fcbfb54dde9b863",
    "hotplug": "7c9705a6d5b549c38b043a749dc13567",
    "dma-fault": "9ab0ca5fea6b46f28773e2e9bb5f002f",
    "lost": "8431430766d04fe7adab31d07c2dff97",
    "hypercall": "27df4534cc164ccc8b1d3d037a414c15",
    "watch": "0d2891c4ee8f4f40aedeed0c5e04b16f",
    "check": "998794fa1aea4cc1bad796c5b584e01c",
    "limit": "4a6a081c04b94f138bf00825f30645a4",
    "metrics": "8da7a2d47954440eaa68295b19621221",
}
