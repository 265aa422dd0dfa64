"""Writers that hand a run to programs which people watch many runs with."""
