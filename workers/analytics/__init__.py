"""`firefleet analytics`: buffers the analytics events of one region and writes them in batches."""
