"""metaplugin on a node's disk: put there, kept there, taken away."""
