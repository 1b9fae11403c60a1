"""What happens without a request: submits, polls, deliveries, and the upkeep of the store."""
