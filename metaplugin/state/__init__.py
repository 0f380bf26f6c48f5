"""What outlives the process: records, which are authoritative, and a database of caches."""
