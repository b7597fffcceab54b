"""Downloads: resumed after a cut, checked before they have a name, asked for once."""
