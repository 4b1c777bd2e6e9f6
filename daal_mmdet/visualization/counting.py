"""Pictures of crowds: image, density map, count."""
