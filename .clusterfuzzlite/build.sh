#!/bin/bash -eu
# Build what OSS-Fuzz builds.
exec bash -eu "$SRC/dmarewind/fuzzers/oss-fuzz/build.sh"
