"""The feature server: packed columns of one user and many items, from Redis."""
