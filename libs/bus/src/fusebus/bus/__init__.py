"""Worker loop and publisher over azure-servicebus."""
