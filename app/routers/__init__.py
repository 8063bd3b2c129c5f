"""HTTP, and nothing else: requests in, answers and problems out."""
