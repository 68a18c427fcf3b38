"""The shared kernel: what every project needs and no project owns.

Nothing in here imports a project; import-linter holds that line.
"""
