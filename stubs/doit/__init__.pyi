# Stubs of doit 0.37, which has no type hints, as far as we use it.
