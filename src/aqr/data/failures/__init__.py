"""Sensor failures on nuScenes-format data: what fails, how badly, and what becomes of the data.

`catalogue` names the failures, `harm` applies one to one sample, `lidar`, `camera` and `alignment` hold the models,
`drawing` picks failures for training. Files on disk are never touched.
"""
