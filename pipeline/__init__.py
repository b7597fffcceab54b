"""Makes artifacts: each file a network install needs, from declared inputs, published whole or not at all."""
