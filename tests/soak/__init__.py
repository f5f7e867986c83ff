"""A soak: a real server with its workers and planner, clients over gRPC, and faults on purpose."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when gRPC is imported
