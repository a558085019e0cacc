"""The wire: generated messages and service descriptors, and their conversion to domain objects."""
