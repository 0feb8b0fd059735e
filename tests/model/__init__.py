"""Exhaustive searches over small models: ``python -m tests.model.rotation``, ``.thief`` and ``.follower``."""
