"""A small Open Images release made from a seed, and a server for it, for the demo and the tests.

    python3 -m sample.make --directory demo/sample
    python3 -m sample.serve demo/sample -- sh make_dataset.sh

- classes: the classes, their names and colours, the hierarchy
- scenes: one drawn image, its boxes and masks
- plan: the split and the fault of each image
- release: the CSV files and tarballs, in the official formats
- masks: the instance masks, in the official form
- make: writes all of it to a folder
- serve: the release, the mirror and the host of the originals, on three local ports
"""
