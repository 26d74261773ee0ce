"""What the services say to each other: messages, topology and outcomes. Imports only msgspec."""
