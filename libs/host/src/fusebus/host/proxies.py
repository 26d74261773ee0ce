"""Whether requests have to ask the environment for their way out."""

from __future__ import annotations

from urllib.request import getproxies_environment


def environment_has_proxies() -> bool:
    """Whether a variable such as HTTPS_PROXY is set.

    Where none is, a client had better not ask for each request: aiohttp looks into .netrc and the variables in a
    thread, twice a request, which takes longer than many an answer of storage.
    """
    return bool(getproxies_environment())
