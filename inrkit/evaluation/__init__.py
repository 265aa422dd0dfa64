"""How well a network reproduces its signal."""
