"""A Service Bus-compatible broker in pure Python."""
