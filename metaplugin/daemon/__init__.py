"""The daemon: the composition root that wires the flows to their effects, and its command line."""
