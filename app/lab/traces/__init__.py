"""What is played: a trace that was recorded somewhere, or a workload that is made up."""
