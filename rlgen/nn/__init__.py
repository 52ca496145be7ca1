"""Networks, their layers and optimisers."""
