"""The compiled parts of the `jellyfish` solver."""
