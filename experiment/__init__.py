"""What takes long: profiling, detections, and cells on a testbed."""
