"""The swap service: places exchange orders at an upstream, and watches each one until its money has arrived.

Six stories, each a folder that a newcomer can read from one end to the other:

    access/     who may call: API keys, request signatures, tracking tokens
    market/     what can be swapped, and at which rate: the catalog, quotes
    orders/     one order is placed: validation, the destination check, the create, orders in doubt
    watching/   one order is followed: polls, the upstream's list, unowned orders, daily reconciliation
    push/       the product learns of every change: the feed, webhook endpoints, deliveries
    ops/        support and operators look: the record of an order, the doctor

The floors, from the top. Imports point down only; folders of one floor do not import each other. `make lint` proves it.

    doors       cli, tools, processes, web, stream, sandbox, sdk (and workers/, beside this package)
    wiring      the one module that knows how the parts fit together
    stories     ops above watching above orders above access, market and push
    rows        store has every query, tables the shape of the rows; upstream is the client of the upstream's protocol
    technique   infra: Redis, logs, secrets, outgoing webhooks; settings
    rules       domain: states, facts, money, schedules, signatures; addresses; errors. No I/O

Where does a new file go? A pure rule: domain. A query: the file of its noun in store. A call to the upstream: upstream.
A step that opens a transaction: the story it belongs to. A route, a command, a socket message: its door, a few lines
long. A file that fits nowhere usually does two things.

Three walks through the code, the rules that hold everywhere and a glossary: docs/architecture.md. This file imports
nothing.
"""
