"""Manifests for Kubernetes, and what keeps them true to the code.

base, components, overlays    Kustomize: what `kubectl apply -k k8s/overlays/<name>` applies
written       ``python -m k8s.written``: topics, Kafka's users, certificates, from the contract
checks        ``python -m k8s.checks``: everything that can be said without a cluster
sizing        ``python -m k8s.sizing``: CPU and memory per process, as loads have measured them
"""
