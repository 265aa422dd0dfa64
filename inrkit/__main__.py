"""`python -m inrkit` is `inrkit`."""

from inrkit.cli import main

main()
