"""The zoo: Darknet networks read into torch, decoded and suppressed."""
