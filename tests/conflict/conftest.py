"""How many examples each law is tried on: 1,000, or as many as `FIREFLEET_EXAMPLES` says."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile(
    "firefleet",
    max_examples=int(os.environ.get("FIREFLEET_EXAMPLES", "1000")),
    deadline=None,  # the machine's other work must not fail a law
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("firefleet")
