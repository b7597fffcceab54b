"""Media that others made: discs, archives, squashfs and disk images. Nothing in them is trusted."""
