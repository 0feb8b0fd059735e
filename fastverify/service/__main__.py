"""``python -m fastverify.service``: the same as the command ``fastverify``."""

from .cli import main

main()
