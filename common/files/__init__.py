"""Complete files, CSV, JSON, failure lists and locks, on disk or on an object store; may import only cli."""
