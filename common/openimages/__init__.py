"""Facts of the data set: classes, ids, the schema of datapoints and index entries; may import only files."""
