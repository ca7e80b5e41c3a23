"""numba kernels for the hot loops: plain arrays in, plain arrays out, no validation, no classes.

Every kernel gives the same bytes whatever the number of threads, and is compiled once a machine
(``cache=True``). The modules that use one import it when first called.
"""
