"""Draw a graph, before and after its run."""
