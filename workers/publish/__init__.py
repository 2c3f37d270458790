"""`firefleet publish`: synthetic changes and analytics events, for test harnesses."""
