"""Fuzzing: targets over what strangers send, their corpora, and the runs of `make fuzz`."""
