"""The development cluster: a complete Kubernetes from source, on one machine, without Docker and without a registry.

Tests, demo and CI judge the operator against the real thing: API server, controllers, scheduler, kubelet, containerd.
No fake has structural defaulting, CEL, server-side apply, the Job controller and real exit codes at once, hence none.

Two sizes, one code:

* `ControlPlane` (`controlplane.py`): etcd, kube-apiserver, kube-controller-manager and kube-scheduler on loopback and
  free ports. No root, several at once, gone with the process that started it. Pods are created but never run.
* `python -m hack.cluster up`: the same control plane plus kubelet, containerd, kube-proxy, CoreDNS, an image registry
  and an S3 server. Needs root; one per machine. Pods really run.

Reading order: `binaries` (what is run), `build` (how it gets here), `controlplane`, `node`, `services`, `lifecycle`.
"""
