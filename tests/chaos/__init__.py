"""The fault campaign: real services, faults from a seed, and an audit in plain SQL at the end."""
