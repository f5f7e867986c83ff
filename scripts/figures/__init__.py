"""One module a figure: each draws from the tables of the workflow alone, in one shared style."""
