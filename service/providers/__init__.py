"""The providers Taskhook speaks to: one file each, one line each in `registry.py`."""
