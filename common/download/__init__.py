"""Step 4: sources, requests, limits of hosts and threads; may import only images, workers."""
