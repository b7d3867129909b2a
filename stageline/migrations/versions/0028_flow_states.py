"""Jobs ask which of the flow models are behind before they build them."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

#: What may be read there is granted by dbt, with the model.
UP = "grant usage on schema intermediate to stageline_jobs"

DOWN = "revoke usage on schema intermediate from stageline_jobs"


def upgrade() -> None:
    op.execute(UP)


def downgrade() -> None:
    op.execute(DOWN)
