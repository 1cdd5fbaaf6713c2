"""Parts from Debian's archive."""
