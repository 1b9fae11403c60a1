"""Background work: submits, polls, deliveries, and maintenance of the store."""
