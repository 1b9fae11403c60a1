"""All HTTP going out: calls to providers, and posts to subscribers under a guard."""
