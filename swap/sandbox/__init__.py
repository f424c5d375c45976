"""A server that speaks the upstream's protocol (docs/sandbox.md). It imports nothing else of this package."""
