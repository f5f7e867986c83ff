"""The wire format: the .proto, its generated code, and conversions to value classes."""

VERSIONS = (1,)  # of the protocol that this code speaks, ascending
