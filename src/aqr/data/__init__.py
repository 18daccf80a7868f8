"""nuScenes-format data: tables -> samples -> batches.

`aqr.data.index` opens a version of a data set and imports no torch; `aqr.data.loader` gives batches. Nothing is
imported here, so that scoring starts without PyTorch.
"""
