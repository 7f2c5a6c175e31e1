"""Step 3: boxes, image index, labels and masks become datapoints; may import only openimages, workers."""
