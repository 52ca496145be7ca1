"""The protocol ladder: levels ordered by distance from the training distribution."""
