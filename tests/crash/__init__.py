"""Kills the receiver, the follow-up worker and PostgreSQL under load, and holds what is stored
against what was acknowledged.

A killed process loses what it had in memory; what it had handed to the operating system stays. So
this shows that nothing is acknowledged before it is written and committed, and that what was begun
is taken up again. A power cut, which also takes what a disk had not been made to write, is not
played here.
"""
