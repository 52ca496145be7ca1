"""Grids as bit masks: views, flood fills and drawing, shared by several environment families."""
