"""`firefleet demo`: three replicas on this machine, with conflicts, and the proof that they end equal."""
