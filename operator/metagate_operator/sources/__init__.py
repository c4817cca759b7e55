"""Where declared objects come from: the `Source` protocol, and a watched directory of YAML files that implements it."""
