"""The dashboard: pages for people, rendered on the server from what the public API would answer them."""
