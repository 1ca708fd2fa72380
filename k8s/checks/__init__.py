"""What can be said of the manifests without a cluster: rules over the objects that an overlay is built to.

objects       an overlay's objects: by kind, and the pods of whatever makes pods
build         overlay -> objects, by kubectl or kustomize
code          what the code says of a process: settings, ports, whom it calls, what it shares out
pods, availability, traffic, kafka    the rules: each gives one line per problem
rules         all of them
schemas       every object against the schema of its kind, strictly
sizes         what an overlay asks for, summed
definitions   schemas of the operators' own kinds, fetched by the package clients of their languages
"""
