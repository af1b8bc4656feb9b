"""Clusters, endpoints and pooled upstream connections."""
