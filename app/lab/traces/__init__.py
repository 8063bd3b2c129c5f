"""What is played: a recorded trace, or a made-up workload."""
