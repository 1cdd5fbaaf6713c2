"""The channel and the wheel index."""
