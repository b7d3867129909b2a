"""What HubSpot's activities and associations were written by, as deals say it.

By it a load finds what is still to be asked for about them among what was written since it last
looked, however large the account is. The loader knows nothing of the column.
"""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

_TABLES = ("calls", "meetings", "associations")


def upgrade() -> None:
    run = op.get_bind().exec_driver_sql
    run("set local role stageline_loader")
    for table in _TABLES:
        run(
            f"alter table raw_hubspot.{table}"
            " add column loaded_xid xid8 not null default pg_current_xact_id()"
        )
        run(
            f"comment on column raw_hubspot.{table}.loaded_xid is"
            " 'Transaction that wrote it: all below the xmin of a snapshot are there for good.'"
        )
        run(f"create index {table}_loaded on raw_hubspot.{table} (loaded_xid)")
        run(
            f"create trigger stamp_change before update on raw_hubspot.{table}"
            " for each row execute function raw_hubspot.stamp_change()"
        )
    run("reset role")


def downgrade() -> None:
    run = op.get_bind().exec_driver_sql
    run("set local role stageline_loader")
    for table in _TABLES:
        run(f"drop trigger stamp_change on raw_hubspot.{table}")
        run(f"alter table raw_hubspot.{table} drop column loaded_xid")
    run("reset role")
