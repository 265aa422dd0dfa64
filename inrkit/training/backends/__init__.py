"""How the errors and gradients of members are computed."""
