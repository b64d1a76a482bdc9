"""Kills, full disks, forged files and strangers, tried on every command: see docs/reliability.md.

A share of it is in the tests; ``make torture`` runs all of it.
"""
