"""What every node's netproxy makes of the managers' word, for a person who looks for trouble."""
