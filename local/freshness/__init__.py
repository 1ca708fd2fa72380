"""``freshness``: how much is lost when the model is synchronised less often, on a real log."""
