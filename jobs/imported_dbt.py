"""Imports dbt for the process that each run of it is forked from: see `jobs.dbt_process`."""

import gc

import dbt.cli.main
import dbt.task.build  # noqa: F401 - what a build imports besides, once and not each time
from dbt.adapters.postgres.connections import PostgresCredentials
from dbt.contracts.project import (
    Configuration,
    PackageConfig,
    ProfileConfig,
    Project,
    ProjectFlags,
)
from dbt.contracts.selection import SelectorFile

# Each run holds its configuration against these; dbt keeps the schemas once they are made.
for _kind in (
    *(ProjectFlags, PostgresCredentials, ProfileConfig, Project),
    *(PackageConfig, SelectorFile, Configuration),
):
    _kind.json_schema()

# What was imported stays: no run need look through it, or copy it by doing so.
gc.freeze()
