"""An offline simulator of the image providers, each in its own simulator format."""
