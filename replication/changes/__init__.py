"""Changes on their way: what capture publishes, what a worker receives, and what becomes a dead letter."""
