"""How near a network is to its signal."""
