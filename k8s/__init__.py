"""Manifests for Kubernetes, and what keeps them true to the code.

base, components, overlays    Kustomize: what `kubectl apply -k k8s/overlays/<name>` applies
kafka_objects                 writes Kafka's objects for Strimzi from services/contract/topics.py
apiserver                     ``python -m k8s.apiserver``: a real API server takes the manifests, no node does
checks                        ``python -m k8s.checks``: everything that can be said without a cluster
"""
