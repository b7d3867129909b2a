"""The Flask application that CRMs post to: verify, land, acknowledge."""
