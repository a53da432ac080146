"""Published claims put to the model at hand: a table of them in one file a group, and the study that tries them.

A claim is data: what it says, the test and the control that were fixed before anything was measured, and the function that
gives one case's pair. Whether it holds is worked out from the pairs by the one rule of `circuits.evaluation.claims`.
"""
