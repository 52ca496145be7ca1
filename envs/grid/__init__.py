"""Grids of cells as bit masks: views, flood fills and drawing, shared by several families."""
