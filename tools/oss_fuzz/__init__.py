"""Build fuzz targets as OSS-Fuzz builds them, and check what it checks, without its images."""
