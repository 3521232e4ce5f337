"""Mailer: a helpdesk out of a mailbox. The scripts `client.py`, `server.py` and `collector.py` are its commands."""
