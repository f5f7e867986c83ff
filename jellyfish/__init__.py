"""The decisions of Jellyfish: pure functions and value classes. No clock, socket or process."""

__version__ = "0.1.0"
