"""Tables, states and every transaction. Knows nobody."""
