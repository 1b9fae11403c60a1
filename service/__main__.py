"""`python -m service` is `taskhook`."""

from service.cli import main

main()
