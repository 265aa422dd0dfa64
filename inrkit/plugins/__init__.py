"""Plug-ins: how they are found by name, and how they declare their options."""
