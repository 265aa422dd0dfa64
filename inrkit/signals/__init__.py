"""Signals: coordinates and values, and everything about them that needs no network."""
