"""`firefleet init`: a first configuration."""
