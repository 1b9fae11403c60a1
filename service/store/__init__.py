"""The database: the one place that remembers, and the only way between web and worker."""
