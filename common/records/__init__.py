"""Step 7: examples, shards, COCO files, verification and report; may import only images, workers."""
