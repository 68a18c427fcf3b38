"""glance: images, their metadata (glance-registry) and their data (glance-api)."""
