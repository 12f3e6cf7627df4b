"""What other libraries of attacks and defences need of a purifier."""
