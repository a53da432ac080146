"""The package in Python: what `import circuits as kc` offers, each a call or a value that shows itself.

These names are read from `circuits` itself; this room only holds them apart from the studies that they call.
"""
