"""Commands about passthrough: what this host can do, what goes together, verdicts, and handing over."""
