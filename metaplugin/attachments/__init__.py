"""metaplugin's own decisions, pure: what is attached, in which order, under which names, with which
routes.

Facts go in as values, plans and calls come out; nothing here waits, reads or writes.
"""
