"""Tensors as a small file: whole numbers, how they become bytes, and the file that holds them."""
