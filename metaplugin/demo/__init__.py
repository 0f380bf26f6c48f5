"""The demo: every example through the real shim into real namespaces, and each claim checked.

It plays the container runtime and looks at the kernel with `ip` and `tc`; of metaplugin it uses
only the two programs, so that it can't share a mistake with them.
"""
