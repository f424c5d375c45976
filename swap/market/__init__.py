"""What can be swapped, and at which rate: the upstream's catalog as we keep it, and quotes."""
