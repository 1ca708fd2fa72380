"""Recall: candidates from several sources, merged, deduplicated and tagged with where they came from."""
