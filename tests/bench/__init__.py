"""`make bench`: what metaplugin costs beside its delegates, as ratios against a floor of the same
run."""
