"""`firefleet capture`: receives the changes of all replicas and publishes them."""
