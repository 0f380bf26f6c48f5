"""The way over from Multus: its configuration as ours, and its pods as our records."""
