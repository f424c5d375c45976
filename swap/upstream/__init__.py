"""The client of the v2 upstream (docs/upstream.md): requests, answers, refusals, the shared rate budget."""
