"""Studies: what is asked (a spec), the cases it falls into, and one case to one row."""
