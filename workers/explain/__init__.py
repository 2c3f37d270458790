"""`firefleet explain`: which rule applies to a document, and why."""
