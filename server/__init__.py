"""The serving runtime: gRPC service, engine, workers, devices and zoo."""
