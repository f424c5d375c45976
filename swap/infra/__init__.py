"""Technique without business: the job queue, Redis and its outages, token buckets, deadlines, secrets at rest, logs, webhook
requests."""
