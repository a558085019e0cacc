"""The agent's rules, and nothing but the rules: events in, effects out."""
