"""The two ways in which a call can fail that the user can do something about."""


class InputError(ValueError):
    """Wrong input: the message says what was given and what would be right. The command line prints it and exits with 2."""


class Diverged(RuntimeError):
    """Training ran away and the divergence guard has used up its tries; the last good state is still on disk."""


def nearest(word: str, known) -> str:
    """A hint ` (did you mean 'x'?)` with the entry of `known` closest to `word`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{close[0]}'?)" if close else ""


def require(package: str, extra: str):
    """Import `package`, or say which extra of Thalweg brings it. Returns the module; raises InputError."""
    import importlib

    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise InputError(f"this needs the package '{package}': pip install 'thalweg[{extra}]' ({error})") from error
