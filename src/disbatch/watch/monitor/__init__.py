"""`dbutil monitor`: a run on a full-screen terminal, with keys that send requests to its driver."""
