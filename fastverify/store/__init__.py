"""Stores: Redis or Valkey behind one door, ``open_store(url)``."""
