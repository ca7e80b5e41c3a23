"""Files of rollouts: which there are (`sources`), how rows are read (`rows`, `tables`), what a column means (`columns`)."""
