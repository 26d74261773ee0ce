"""Messages, topology and outcomes: what the services say to each other."""
