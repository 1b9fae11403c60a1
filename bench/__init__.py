"""Benchmarks: the service as users start it, beside yardsticks measured in the same run."""
