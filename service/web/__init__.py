"""HTTP coming in: parse, call, answer."""
