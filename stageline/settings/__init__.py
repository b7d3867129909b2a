"""What operators decide, kept in the schema ``settings``: read and written by functions alone."""
