"""Declared providers: a TOML declaration in, a Provider out. docs/declarations.md describes the vocabulary."""
