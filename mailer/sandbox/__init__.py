"""A mail server in memory, on loopback, with SMTP and IMAP: to try Mailer without an account, and to test it."""
