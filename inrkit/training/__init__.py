"""Training: members, and the loop that steps them."""
