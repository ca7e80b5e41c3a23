"""Files of rollouts: which there are (`sources`), how rows are read (`rows`), what a column means (`columns`)."""
