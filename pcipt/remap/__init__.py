"""What must be done: plan, guards, ledger. Pure."""
