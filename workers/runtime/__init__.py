"""What every process shares: starting and stopping, health, progress, serving, output."""
