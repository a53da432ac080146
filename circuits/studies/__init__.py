"""Studies: what is asked (a spec), the cases it falls into, and one case to one row.

A question that takes several runs belongs here, a file each; how runs are swept, kept and resumed is written once (`study`, `sweep`).
What one measure is belongs to `circuits.evaluation`, and how rows look to `circuits.pages`.
"""
