"""Devices: what executes a DNN inside a worker process."""
