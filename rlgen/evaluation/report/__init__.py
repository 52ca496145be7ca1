"""Reports: HTML pages, figures and tables in the terminal."""
