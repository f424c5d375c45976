"""The drill: the service as real processes under a misbehaving upstream, while its parts are killed and its stores cut off.

Nothing here imports the service. Everything goes through what it promises to the outside: its command line, its HTTP API,
its webhooks; and what must come out is read from the sandbox's own truth. Run it with `make drill`, or `python -m drill`.
"""
