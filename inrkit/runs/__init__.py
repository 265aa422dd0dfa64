"""From a user's request to the files on disk."""
