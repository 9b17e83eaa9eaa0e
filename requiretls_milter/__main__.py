"""``python -m requiretls_milter``."""

from requiretls_milter.cli import main

main()
