"""The wire format: the .proto, its generated code, and conversions to value classes."""
