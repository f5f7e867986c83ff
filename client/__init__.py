"""The device runtime: frame source, session, transports and shaping."""
