"""How any process lives and dies: settings, signals, gRPC, Kafka, Redis, clocks, telemetry.

Nothing in here knows what is being recommended; it may use ``services.contract``.
"""
