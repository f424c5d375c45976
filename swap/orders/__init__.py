"""One order is placed: validated, its destination checked, created at the upstream, and settled when in doubt."""
