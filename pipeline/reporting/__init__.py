"""What happens in a build, told to people and programs."""
