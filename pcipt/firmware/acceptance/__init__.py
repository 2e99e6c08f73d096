"""Judge whether Xen accepts a machine's DMAR or IVRS table: `judge.judge`; each way is in `rules.RULES`."""
