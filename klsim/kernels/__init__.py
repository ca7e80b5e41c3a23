"""numba kernels for the hot loops: plain arrays in, plain arrays out, no validation, no classes.

Every kernel gives the same bytes whatever the number of threads, and is compiled once a machine
(``cache=True``). The modules that use one import it when first called.
"""

import os


def _load_patient_threads() -> None:
    """Load numba's OpenMP threads so that they sleep while they wait, unless the user's ``OMP_WAIT_POLICY`` says how.

    By default they spin: where cores are shared with other work, one that waits keeps the other from its core.
    libgomp reads the variable when it is loaded; other libraries' threads shall not see it.
    """
    if "OMP_WAIT_POLICY" in os.environ:
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    try:
        from numba.np.ufunc import omppool  # type: ignore[attr-defined] # noqa: F401
    except ImportError:  # numba is built without OpenMP, or the system has none: it takes other threads
        pass
    finally:
        del os.environ["OMP_WAIT_POLICY"]


_load_patient_threads()
