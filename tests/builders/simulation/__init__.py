"""A Kubernetes cluster in memory, with a clock of its own, in which everything goes wrong that can.

Real: the operator's store, queue, workers, reconciler, resync, API client and every decision. Simulated: the API
server (`server`), the controllers and the kubelet (`controllers`, `kubelet`), the network and the watches (`process`),
and time (`loop`): an hour passes as fast as it can be computed. Every accepted write is checked against what the
operator promises (`promises`). `history` plays disturbances that a seed chooses; a history is played again with

    python -m tests.builders.simulation SEED
"""
