"""The command ``cumulet``: bring the cloud up and down, run its services, look at it, ask it why."""
