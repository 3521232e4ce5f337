"""What Mailer is measured beside: servers that take the same requests, and loops that read the same mailbox."""
