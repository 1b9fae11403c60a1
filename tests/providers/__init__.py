"""The providers, tested by bytes alone."""
