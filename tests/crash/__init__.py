"""Kills the receiver, the workers, dbt and PostgreSQL under load, and holds what is stored against
what was acknowledged, and what readers saw against whole tables.

A killed process loses what it had in memory; what it had handed to the operating system stays. So
this shows that nothing is acknowledged before it is written and committed, and that what was begun
is taken up again. A power cut, which also takes what a disk had not been made to write, is not
played here.
"""
