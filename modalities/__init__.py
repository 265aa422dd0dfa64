"""The built-in modalities, found through the same entry points as a stranger's."""
