"""Decide what must be done so that Xen agrees with the machine: desired pages, plan, guards, ledger. Pure."""
