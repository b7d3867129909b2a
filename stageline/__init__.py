"""What loaders, receiver and jobs share: configuration, database, embedded server, command."""
