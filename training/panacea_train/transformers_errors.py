"""What transformers raises and prints while it loads a folder, as one error of Panacea's."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from panacea.errors import PanaceaError, first_line


@contextmanager
def loading(name: object, error_type: type[PanaceaError]) -> Generator[None]:
    """Turns an error of transformers inside the block into `error_type`, and hides its warnings.

    `name` is what the message calls the model.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        yield
    except (ValueError, OSError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise error_type(f"{name} cannot be loaded: {first_line(error)}") from None
    finally:
        transformers_logging.set_verbosity(level)
