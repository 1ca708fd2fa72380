"""A real API server, without nodes, that takes the manifests by server-side dry run.

binaries    kube-apiserver and etcd, built from the Go module proxy once, kept in the user's cache
server      both of them running on loopback, and kubectl against them
"""
