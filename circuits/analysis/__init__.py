"""What components do: where a head looks, what it writes and draws it from, which role that makes, the story of a fact.

A reading of one model on given facts belongs here, a file each. What a reading is worth as a claim is `circuits.evaluation`'s;
the same reading over many facts or models is a study's.
"""
