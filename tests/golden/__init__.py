"""Numbers that independent code computed once, and the scripts that computed them."""
