"""What the garbage collector need not look at."""

import gc


def spare_what_is_there() -> None:
    """Has the collector look no more at what there is now, once it has removed what is garbage already.

    For what stays as long as the process, such as modules: an object that becomes part of a cycle later is never freed.
    """
    gc.collect()
    gc.freeze()
