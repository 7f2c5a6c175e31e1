"""One image: decode, resize, encode; the finished images of a folder; may import only openimages, files."""
