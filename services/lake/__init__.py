"""The lake: events and samples as Parquet by event day, the join over it, and what is reconciled with it."""
