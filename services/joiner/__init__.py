"""Hosts the join (services/contract/join.py): one task and one transactional id per owned partition."""
