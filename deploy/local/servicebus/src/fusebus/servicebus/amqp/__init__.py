"""AMQP 1.0 on the wire: values, performatives, frames and message sections, without any I/O."""
