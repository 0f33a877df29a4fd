"""The same jobs, written for other engines as their own documentation teaches."""
