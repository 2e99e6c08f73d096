"""Hypothesis by number of examples, not by time: a machine may be busy."""

import hypothesis

hypothesis.settings.register_profile(
    "pcipt", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("pcipt")
