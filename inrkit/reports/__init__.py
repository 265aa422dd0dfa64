"""Pages to look at: of a run, of a study, and of a training under way; and what else shows them."""
