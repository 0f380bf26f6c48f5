"""The flows of the CNI commands. Read add.py first; ports.py says what they need from outside."""
