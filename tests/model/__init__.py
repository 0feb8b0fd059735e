"""Exhaustive searches over small models of the protocols: ``python -m tests.model.rotation``, ``.thief``, ``.follower``."""
