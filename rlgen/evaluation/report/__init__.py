"""Reports: HTML pages, figures and terminal tables."""
