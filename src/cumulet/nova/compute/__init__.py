"""nova-compute: makes this host's machines what the intent says."""
