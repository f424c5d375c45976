"""Technique without business: the job queue, token buckets, secrets at rest, logs, outgoing webhook requests."""
