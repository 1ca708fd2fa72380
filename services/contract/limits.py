"""Bounds that two services hold, so that one does not pass on what the other refuses."""

# Arms that score a request beside the one that answers it; ranking holds a full state of each.
MAX_SHADOW_ARMS = 8
