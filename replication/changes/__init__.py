"""Changes in flight: what capture publishes, what a worker receives, and what becomes a dead letter."""
