"""Saved values as HTML, SVG, Markdown and tables of the terminal.

What is shown and how belongs here; what is measured does not. A page needs no model: it is drawn from a record alone.
"""
