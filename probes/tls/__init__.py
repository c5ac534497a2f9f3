"""TLS: the kind of test, whom it trusts, and what it learns of certificates."""
