"""Webhook receiver and task tracker for asynchronous image-generation APIs."""
