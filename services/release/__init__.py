"""Numbers generations and decides what each arm serves."""
