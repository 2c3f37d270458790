"""`firefleet dev`: a whole fleet on this machine, on the official emulators, until it is interrupted."""
