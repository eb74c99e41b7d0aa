"""One run for agents and recipes: start it, join it, watch it, stop it, decide in it, wait for it."""
