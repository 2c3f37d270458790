"""Apply a batch of changes at one replica: decide, write conditionally, log conflicts, tell the others."""
