"""The trainer as a service: runs are started, stopped, listed and watched over gRPC.

The service itself trains nothing and holds nothing: what it knows of a run lies in the run's folder or in the cluster,
so that it may end and come back at any time. A launcher puts runs to work, as processes here or as jobs of a cluster.
"""
