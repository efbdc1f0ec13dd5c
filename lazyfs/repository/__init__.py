"""Repositories: trust, catalogs, history, and one revision as a tree of nodes."""
