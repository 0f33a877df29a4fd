"""How fast it is, measured beside stock Faust on the same broker: see README.md."""
