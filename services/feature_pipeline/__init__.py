"""Streaming features: events -> one part per touched entity -> packed state in Redis."""
