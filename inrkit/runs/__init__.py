"""From what a user asked for to what lies on disk."""
