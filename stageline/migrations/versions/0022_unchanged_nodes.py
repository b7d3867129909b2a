"""What a refresh need not do again, as nothing of it has changed."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

UP = """
create table ops.unchanged_nodes (
    node text primary key,
    mark text not null,
    relation text not null
);
comment on table ops.unchanged_nodes is
    'One row per view, seed and test that was good when it was last built or tested.';
comment on column ops.unchanged_nodes.node is 'Its unique id, as dbt gives it.';
comment on column ops.unchanged_nodes.mark is
    'Hash over all that it is made of: its definition, the project, the rows of its sources.';
comment on column ops.unchanged_nodes.relation is
    'What stood in the database for it; another word there means that somebody else made it.';
"""

DOWN = """
drop table ops.unchanged_nodes;
"""


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
