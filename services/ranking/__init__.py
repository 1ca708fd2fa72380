"""Scores candidates with the arms' models and logs what it scored."""
