# Programs that were built outside, as the image that the Dockerfile's PROGRAMS takes: its context is a folder with
# bin/{r2o-coordinator,r2octl,r2o-worker}, sbom/ with a bill of each, cuda.txt, and libtorch/lib.
FROM scratch
COPY . /out/
