"""Which physical functions are kept for guests: entries (`entries`), the functions that they mean now
(`resolve`), the list for the initramfs (`compiled`), and lines for other tools (`snippets`).
"""
