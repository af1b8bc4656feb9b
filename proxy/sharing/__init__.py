"""What filters share by vm_id, across filters and worker processes: data with compare-and-swap, and queues.

Each vm_id is a *namespace*: an LMDB file of its own in a private directory that lives as long as the gateway.

    SharedStore (supervisor, before forking) -> Sharing (a worker, after) -> Space (one VM)
"""
