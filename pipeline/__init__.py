"""Makes artifacts: every file a network install needs, each from declared inputs, each published whole or not at all."""
