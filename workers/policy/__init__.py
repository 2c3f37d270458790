"""`firefleet policy`: an application's own conflict policies."""
