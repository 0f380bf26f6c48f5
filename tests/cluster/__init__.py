"""A regular package, so that its clusters (fixtures of scope `package`) and their links are gone
before other tests look at what is left on the node."""
