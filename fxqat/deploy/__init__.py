"""From the graph to files that a runtime executes, and the proof that they compute the same."""
