"""Takes what clients saw and did, and acknowledges it once Kafka holds it."""
