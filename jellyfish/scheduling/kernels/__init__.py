"""The compiled parts of the `jellyfish` and `paper` solvers."""
