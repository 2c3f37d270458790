"""Apply a batch of changes at one replica: decide, write conditionally, log conflicts, inform the others."""
