"""A cache as a thing people look after: what is in it, what can go, whether it is whole, on to another cache."""
