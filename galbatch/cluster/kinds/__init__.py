"""The kinds of clusters, one file each, and what workers of this machine need at their start (`worker_plugins`) and end (`ending`).

Each plays `galbatch.cluster.base.ClusterKind`. `galbatch.cluster.registry` imports and lists them, so that a new kind is a file here and an entry there.
"""
