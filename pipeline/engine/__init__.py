"""Our side of doit: how a run is reported, locked and interrupted."""
