"""Stores: Redis or Valkey behind one door, ``open_store(url)``."""

from .calls import Call, Flow, Pause
from .driver import AsyncStore, Store, drive, drive_async
from .urls import open_store

__all__ = ["AsyncStore", "Call", "Flow", "Pause", "Store", "drive", "drive_async", "open_store"]
