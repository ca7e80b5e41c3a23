"""Four studies of a pretrained language model; `study.py` beside this folder runs them."""
