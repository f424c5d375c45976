"""One file per noun; each has a blueprint `blp`."""
