"""One adapter per backend, named after it; each implements a port of `replication.ports`."""
