"""Studies that ship with inrkit."""
