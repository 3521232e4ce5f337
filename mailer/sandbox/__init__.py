"""A mail server on loopback, SMTP in and IMAP out of memory: to try Mailer without an account, and to test it."""
