"""What goes with an artifact: what is in it, where it comes from."""
