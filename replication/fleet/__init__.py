"""The fleet as the core sees it: replicas, rules, path patterns, and who a message is for."""
