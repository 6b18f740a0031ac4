"""Every transaction that changes state."""
