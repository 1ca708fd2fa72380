"""Runs the whole loop on one machine: Redis, Kafka and every service as processes, started, watched and
stopped.

Nothing outside imports this package; it starts the others by their command lines and knows them by their
ports.
"""
