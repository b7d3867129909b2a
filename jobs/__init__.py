"""Run what keeps the KPI tables fresh and trusted: quality checks and builds."""
