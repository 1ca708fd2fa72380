"""Gateway: the door for clients. Asks recall, features and ranking, and degrades rather than fails."""
