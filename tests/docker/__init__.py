"""The Dockerfile and the compose file."""
