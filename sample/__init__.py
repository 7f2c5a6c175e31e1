"""A small Open Images release of our own making, and a server for it: the demo and the tests use it.

    python3 -m sample.make --directory demo/sample
    python3 -m sample.serve demo/sample -- sh make_dataset.sh

- classes: the classes, their names and colours, the hierarchy
- scenes: one drawn photo and its boxes
- plan: which photo is in which split, and what is wrong with it
- release: the CSV files and tarballs, in the official formats
- make: writes all of it into a folder
- serve: the release, the mirror and the photos' own host, on three ports of the loopback
"""
