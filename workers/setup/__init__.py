"""`firefleet check` and `firefleet provision`: what the cloud must have, and what it lacks."""
