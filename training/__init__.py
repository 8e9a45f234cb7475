"""How the weights that this project ships were trained: scripts, none of which the package needs."""
