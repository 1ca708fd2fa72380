"""The trainer: learns from joined samples, online or from a file, and publishes what it has learned.

Pure core (samples, admission, step, touched, barriers, expiry, core), thin shell (online, recovery,
publisher, bases).
"""
