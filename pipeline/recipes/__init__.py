"""The graph: a module for each kind of artifact, of functions that return :class:`pipeline.artifact.Artifact`."""
