"""Networks, layers, normalisers and optimisers."""
