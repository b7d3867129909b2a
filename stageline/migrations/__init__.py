"""Alembic's revisions of the database: `stageline.migrate` runs them. Their SQL is frozen."""
