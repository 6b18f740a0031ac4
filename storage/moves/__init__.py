"""Transactions that change state. Each is one short transaction that expects the state it changes."""
