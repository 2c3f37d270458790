"""`firefleet replicate`: applies the changes of the other replicas to one replica."""
