"""A host made of dictionaries; the whole cloud runs on it, thousands of hosts in one process."""
