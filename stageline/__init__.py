"""What loaders, receiver and jobs share: configuration, database access, embedded server, command."""
