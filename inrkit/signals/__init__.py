"""Signals: coordinates and values, and what surrounds them before a network comes in."""
