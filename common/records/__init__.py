"""Step 7: examples, shards, verification and report; may import only images, workers."""
