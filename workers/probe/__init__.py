"""`firefleet probe`: whether changes flow between all replicas, and how fast."""
