"""Processes that serve or supervise: `swap api` behind its WSGI server, and `swap up` with all its children."""
