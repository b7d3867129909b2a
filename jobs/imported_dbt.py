"""Imports dbt for the process that each run of it is forked from: see `jobs.dbt_process`."""

import gc

import dbt.adapters.postgres
import dbt.cli.main
import dbt.task.build  # noqa: F401 - what a build imports besides, once and not each time

# What was imported stays: no run need look through it, or copy it by doing so.
gc.freeze()
