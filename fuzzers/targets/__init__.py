"""The fuzz targets: each module has a `create()`."""
