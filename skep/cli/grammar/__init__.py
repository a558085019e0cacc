"""Which commands there are and what they take: a module for each first word, or a few of them."""
