"""The benchmark: everything it compares is measured side by side, in one run, on one machine."""
