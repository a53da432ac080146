"""What an edit, a failure, a demonstration or a reversal does to a circuit: runs that differ in one thing, and a verdict."""
